"""The configuration: frozen models of what the operator wrote, checked without any network."""

from xmode_transfer.domain.config.alerting import Alerting, Channel, Heartbeat
from xmode_transfer.domain.config.bandwidth import BandwidthLimit, Day
from xmode_transfer.domain.config.cluster import Cluster
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
from xmode_transfer.domain.config.freshness import FeedFreshness, Freshness
from xmode_transfer.domain.config.retention import By, Policy, Retention, held_by
from xmode_transfer.domain.config.schedule import Schedule
from xmode_transfer.domain.config.secret import Secret, SecretRef
from xmode_transfer.domain.config.service import Engine, Limits, Service, UnsafeRoles, Vendor
from xmode_transfer.domain.config.status_page import StatusPage
from xmode_transfer.domain.config.whole import Configuration, Problem
