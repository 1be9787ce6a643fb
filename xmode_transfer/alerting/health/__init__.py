"""How each customer fares, by the ledger alone: the one evaluator behind `status`, the page, the metrics and
the alerts, so that they never disagree.

A subscription is judged by what was recorded: its open deliveries, the last look at its source, the newest
period that was delivered, and until when the next one is to be (``config.freshness``). What is said of it, in
words, is said in ``sentences``, and nowhere else.
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
