"""The configuration: frozen models of its files, checked without network."""

from xmode_transfer.config.checks import Checks, EmptyPeriod, HeaderRule, OnFailure, SchemaRule
from xmode_transfer.config.configuration import Configuration, Problem
from xmode_transfer.config.customer import (
    Addressing,
    CatchUp,
    ChecksumMode,
    Customer,
    CustomerState,
    Destination,
    Encryption,
    held_by,
)
from xmode_transfer.config.feed import Feed, Marker, Settled, Subscription
from xmode_transfer.config.retention import By, Policy, Retention
from xmode_transfer.config.schedule import BandwidthLimit, Day, FeedFreshness, Freshness, Schedule
from xmode_transfer.config.secrets import Secret, SecretRef
from xmode_transfer.config.service import (
    Alerting,
    Channel,
    Cluster,
    Engine,
    Heartbeat,
    Limits,
    Ownership,
    Service,
    StatusPage,
    UnsafeRoles,
    Vendor,
)
