"""The configuration: frozen models of what the operator wrote, checked without any network."""

from xmode_transfer.config.base import Secret, SecretRef
from xmode_transfer.config.configuration import Configuration, Problem
from xmode_transfer.config.customer import (
    Addressing,
    CatchUp,
    ChecksumMode,
    Customer,
    CustomerState,
    Destination,
    Encryption,
)
from xmode_transfer.config.feed import Feed, Marker, Settled
from xmode_transfer.config.retention import By, Policy, Retention, held_by
from xmode_transfer.config.schedule import BandwidthLimit, Day, FeedFreshness, Freshness, Schedule
from xmode_transfer.config.service import (
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
from xmode_transfer.config.status_page import StatusPage
