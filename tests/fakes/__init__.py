"""The outside in memory: buckets, roles, a source and a clock that obey the same rules as the real ones.

Nothing survives the process.
"""

from tests.fakes.buckets import MemoryBucket, MemoryBuckets, StoredVersion
from tests.fakes.clock import MemoryClock
from tests.fakes.faults import Fault, Faults
from tests.fakes.probing import MemoryProber
from tests.fakes.roles import MemoryRole, MemoryRoles
from tests.fakes.sessions import MemoryRoleSessions
from tests.fakes.source import MemoryOpenFile, MemorySource
from tests.fakes.store import MemoryObjectStore, MemoryObjectStores

__all__ = [
    "Fault",
    "Faults",
    "MemoryBucket",
    "MemoryBuckets",
    "MemoryClock",
    "MemoryObjectStore",
    "MemoryObjectStores",
    "MemoryOpenFile",
    "MemoryProber",
    "MemoryRole",
    "MemoryRoleSessions",
    "MemoryRoles",
    "MemorySource",
    "StoredVersion",
]
