"""The outside in memory: buckets, roles, a source and a clock that obey the same rules as the real ones.

For tests and for trying things out; nothing survives the process.
"""

from xmode_transfer.adapters.memory.buckets import MemoryBucket, MemoryBuckets, StoredVersion
from xmode_transfer.adapters.memory.clock import MemoryClock
from xmode_transfer.adapters.memory.faults import Fault, Faults
from xmode_transfer.adapters.memory.probing import MemoryProber
from xmode_transfer.adapters.memory.roles import MemoryRole, MemoryRoles
from xmode_transfer.adapters.memory.sessions import MemoryRoleSessions
from xmode_transfer.adapters.memory.source import MemoryOpenFile, MemorySource
from xmode_transfer.adapters.memory.store import MemoryObjectStore, MemoryObjectStores

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
