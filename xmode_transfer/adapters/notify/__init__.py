"""Sends alerts to channels, and the heartbeat.

Secrets are read at each message, so that one that was replaced counts at once.
"""

from xmode_transfer.adapters.notify import apprise_urls, webhook
from xmode_transfer.adapters.secrets import read_secret
from xmode_transfer.domain.alerts import Message
from xmode_transfer.domain.config import Channel, Heartbeat


def send(channel: Channel, message: Message) -> str:
    """What the channel answered, in a few words. Raises NotificationFailed, or ConfigError for a secret that
    cannot be read."""
    key = f"alerts.{channel.name}"
    if channel.apprise is not None:
        return apprise_urls.send(read_secret(channel.apprise, f"{key}.apprise"), message, f"{key}.apprise")
    assert channel.webhook is not None  # the configuration sees to it
    url = read_secret(channel.webhook, f"{key}.webhook")
    token = read_secret(channel.token, f"{key}.token") if channel.token is not None else None
    return webhook.post(url, token, message, f"{key}.webhook")


def beat(heartbeat: Heartbeat) -> None:
    """Asks for the URL (GET): a dead man's switch raises the alarm when the heartbeat stops. Raises as
    ``send`` does."""
    key = "alerting.heartbeat.url"
    webhook.ask(read_secret(heartbeat.url, key), key)
