"""The channels that alerts are sent to, and the heartbeat."""

from xmode_transfer.adapters.notify.apprise_urls import AppriseNotifier
from xmode_transfer.adapters.notify.webhook import HeartbeatUrl, WebhookNotifier

__all__ = ["AppriseNotifier", "HeartbeatUrl", "WebhookNotifier"]
