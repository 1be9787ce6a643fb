"""The configuration: frozen models of what the operator wrote, checked without any network."""

from xmode_transfer.domain.config.customer import (
    Addressing,
    CatchUp,
    ChecksumMode,
    Customer,
    CustomerState,
    Destination,
    Encryption,
)
from xmode_transfer.domain.config.feed import Feed, Marker, Settled
from xmode_transfer.domain.config.retention import By, Policy, Retention, held_by
from xmode_transfer.domain.config.schedule import BandwidthLimit, Day, FeedFreshness, Freshness, Schedule
from xmode_transfer.domain.config.secret import Secret, SecretRef
from xmode_transfer.domain.config.service import (
    Alerting,
    Channel,
    Cluster,
    Engine,
    Heartbeat,
    Limits,
    Service,
    UnsafeRoles,
    Vendor,
)
from xmode_transfer.domain.config.status_page import StatusPage
from xmode_transfer.domain.config.whole import Configuration, Problem
