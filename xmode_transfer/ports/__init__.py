"""What the services need from the outside, each as a written contract.

An adapter that passes the contract suite of its port (tests/contract) may be put behind it.
All errors are domain errors (``domain.errors``); all times are UTC-aware.
"""

from xmode_transfer.ports.attesting import Attestation
from xmode_transfer.ports.board import Board, Pulse, Turn, TurnState
from xmode_transfer.ports.clock import Clock
from xmode_transfer.ports.fleet import Fleet
from xmode_transfer.ports.notifying import Heart, Notifier
from xmode_transfer.ports.probing import ProbedObject, Prober, ReservedPlace
from xmode_transfer.ports.progress import Progress
from xmode_transfer.ports.reading import Reader
from xmode_transfer.ports.sessions import Credentials, CredentialsProvider, RoleSessions
from xmode_transfer.ports.sharing import Shares
from xmode_transfer.ports.sources import ChecksumOf, OpenFile, PeriodState, Source, SourceFactory, Spool
from xmode_transfer.ports.stores import (
    DELETE_MANY_KEYS,
    Deleted,
    Deletion,
    DeletionResult,
    EngineInfo,
    ListedObject,
    ObjectInfo,
    ObjectStore,
    ObjectStores,
    PutAnswer,
    PutRequest,
)

__all__ = [
    "DELETE_MANY_KEYS",
    "Attestation",
    "Board",
    "ChecksumOf",
    "Clock",
    "Credentials",
    "CredentialsProvider",
    "Deleted",
    "Deletion",
    "DeletionResult",
    "EngineInfo",
    "Fleet",
    "Heart",
    "ListedObject",
    "Notifier",
    "ObjectInfo",
    "ObjectStore",
    "ObjectStores",
    "OpenFile",
    "PeriodState",
    "ProbedObject",
    "Prober",
    "Progress",
    "Pulse",
    "PutAnswer",
    "PutRequest",
    "Reader",
    "ReservedPlace",
    "RoleSessions",
    "Shares",
    "Source",
    "SourceFactory",
    "Spool",
    "Turn",
    "TurnState",
]
