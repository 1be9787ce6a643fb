"""Health of each customer, from the ledger alone: the one evaluator behind `status`, the page, the metrics
and the alerts, so that they never disagree.

A subscription is assessed by its open deliveries, the last source scan, the newest delivered period, and the
deadline of the next one (``config.times``). Only ``sentences`` has the messages.
"""

from xmode_transfer.alerting.health.judging import assess
from xmode_transfer.alerting.health.records import (
    SOUND,
    Assessment,
    CustomerHealth,
    Health,
    Issue,
    SubscriptionHealth,
    worst,
)
