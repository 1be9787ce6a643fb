"""What the services need from the outside, each as a written contract.

An adapter that passes the contract suite of its port (tests/contract) may be put behind it.
All errors are domain errors (``domain.errors``); all times are UTC-aware.
"""

from xmode_transfer.domain.records import ListedObject, ObjectInfo
from xmode_transfer.ports.bodies import OpenFile
from xmode_transfer.ports.probing import ProbedObject, Prober, ReservedPlace
from xmode_transfer.ports.process import Attestation, Clock, Progress
from xmode_transfer.ports.sessions import Credentials, CredentialsProvider, RoleSessions
from xmode_transfer.ports.sources import ChecksumOf, PeriodState, Source, SourceFactory
from xmode_transfer.ports.stores import (
    DELETE_MANY_KEYS,
    Deleted,
    Deletion,
    DeletionResult,
    EngineInfo,
    ObjectStore,
    ObjectStores,
    PutAnswer,
    PutRequest,
    Reader,
)
from xmode_transfer.ports.work_queue import WorkQueue
