"""The adapters that stand behind each port, each as a case that the port's suite runs against.

A new adapter of ``ObjectStore`` plugs in by one more entry in ``STORE_CASES``.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from xmode_transfer.adapters.clock import SystemClock
from xmode_transfer.adapters.limiting import LimitingStores
from xmode_transfer.adapters.memory import (
    MemoryBuckets,
    MemoryClock,
    MemoryObjectStores,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
    StoredVersion,
)
from xmode_transfer.adapters.retrying import RetryingStores
from xmode_transfer.adapters.s3_portable import PortableStores
from xmode_transfer.adapters.sts import StsRoleSessions
from xmode_transfer.domain.config import Customer, Destination, Limits, Vendor
from xmode_transfer.domain.periods import Period
from xmode_transfer.domain.policy import Step, corrected_permission_policy, guide_trust_policy
from xmode_transfer.ports import ObjectStore, ObjectStores, OpenFile, RoleSessions
from xmode_transfer.sandbox.accounts import set_permission_policy
from xmode_transfer.sandbox.bucket import empty_bucket, put_object
from xmode_transfer.sandbox.clients import owner
from xmode_transfer.sandbox.model import Variant

Document = dict[str, Any]


@dataclass
class StoreCase:
    """One adapter in front of one customer's fresh bucket, whose role has the corrected permission policy.

    The functions do what the customer does on its own side: ``grant`` replaces the role's permission policy,
    ``customer_puts`` writes an object that is not ours, ``turn_versioning_on``, ``delete_bucket``.
    ``page_size`` is how many rows one page of a listing has at most. The flags say what the far side does:

    ``enforces_policy``   requests without a right are refused
    ``enforces_owner``    a wrong expected bucket owner is refused
    ``answers_checksum``  the answer to an upload carries the checksum that S3 has computed
    ``parts_allowed``     parts pass under the guide's policy, with its condition on the ACL
    """

    name: str
    customer: Customer
    stores: ObjectStores
    sessions: RoleSessions
    grant: Callable[[Document], None]
    customer_puts: Callable[[str, bytes], None]
    turn_versioning_on: Callable[[], None]
    delete_bucket: Callable[[], None]
    page_size: int = 1000
    enforces_policy: bool = True
    enforces_owner: bool = True
    answers_checksum: bool = True
    parts_allowed: bool = True
    _opened: list[ObjectStore] = field(default_factory=list)

    @property
    def bucket(self) -> str:
        return self.customer.destination.bucket

    def key(self, name: str) -> str:
        return self.customer.destination.prefix + name

    def open(self, step: Step = Step.CHECK, **changes: Any) -> ObjectStore:
        """A store of the customer, or of one whose destination (or else itself) is changed."""
        of_destination = {name: value for name, value in changes.items() if name in Destination.model_fields}
        of_customer = {name: value for name, value in changes.items() if name not in of_destination}
        document = self.customer.model_dump(exclude_unset=True)
        document |= of_customer | {"destination": document["destination"] | of_destination}
        customer = Customer(**document)
        store = self.stores.open(customer, self.sessions.open(customer, step), None)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()
        self.stores.close()


def _memory(*, parts_inherit_acl: bool, threads: int) -> Callable[..., AbstractContextManager[StoreCase]]:
    @contextmanager
    def case(request: pytest.FixtureRequest) -> Iterator[StoreCase]:
        customer = Customer(
            name="acme",
            company="Acme Corp",
            external_id="AcmeCorp",
            role_arn="arn:aws:iam::111122223333:role/XMode",
            destination=Destination(bucket="acme-data", prefix="xmode/"),
            feeds=("us-daily",),
        )
        clock = MemoryClock()
        buckets = MemoryBuckets(clock, parts_inherit_acl=parts_inherit_acl)
        bucket = buckets.create("acme-data", customer.account_id)
        roles = MemoryRoles(clock)

        def grant(document: Document) -> None:
            roles.put(
                customer.role_arn,
                trust_policy=guide_trust_policy(customer.external_id),
                permission_policies=[document],
            )

        def customer_puts(key: str, data: bytes) -> None:
            bucket.store(
                StoredVersion(key, bucket.new_id("version"), clock.now(), body=data, etag=f'"{data!r}"')
            )

        def turn_versioning_on() -> None:
            bucket.versioned = True

        grant(corrected_permission_policy("acme-data", "xmode/"))
        yield StoreCase(
            "memory",
            customer,
            MemoryObjectStores(buckets, roles, page_size=3, threads=threads),
            MemoryRoleSessions(roles),
            grant,
            customer_puts,
            turn_versioning_on,
            lambda: buckets.delete("acme-data"),
            page_size=3,
            parts_allowed=parts_inherit_acl,
        )

    return case


@contextmanager
def _decorated(request: pytest.FixtureRequest) -> Iterator[StoreCase]:
    """What ``bootstrap`` puts around an engine changes nothing of what it does."""
    with _memory(parts_inherit_acl=True, threads=4)(request) as case:
        stop = threading.Event()
        limited = LimitingStores(case.stores, Limits(parallel_objects=2), SystemClock(), stop)
        case.name, case.stores = "memory-decorated", RetryingStores(limited, stop)
        yield case


@contextmanager
def _portable(request: pytest.FixtureRequest) -> Iterator[StoreCase]:
    """The portable engine and real role sessions, on the local AWS with authorisation."""
    setup = request.getfixturevalue("customer_factory")("acme", Variant.ABORT_GRANTED)
    request.getfixturevalue("as_vendor")
    customer = Customer(
        name=setup.name,
        company=setup.company,
        external_id=setup.external_id,
        role_arn=setup.role_arn,
        destination=Destination(bucket=setup.bucket, prefix=setup.prefix, region=setup.region),
        feeds=("us-daily",),
    )
    clock = SystemClock()
    s3 = owner(setup, "s3")

    def delete_bucket() -> None:
        empty_bucket(setup)
        s3.delete_bucket(Bucket=setup.bucket)

    yield StoreCase(
        "portable",
        customer,
        PortableStores(Limits(), clock, page_size=7),
        StsRoleSessions(Vendor(), clock),
        lambda document: set_permission_policy(setup, document),
        lambda key, data: put_object(setup, key, data) and None,
        lambda: s3.put_bucket_versioning(Bucket=setup.bucket, VersioningConfiguration={"Status": "Enabled"}),
        delete_bucket,
        page_size=7,
        enforces_owner=False,
        answers_checksum=False,
        parts_allowed=False,
    )


STORE_CASES: dict[str, tuple[Callable[..., AbstractContextManager[StoreCase]], tuple[Any, ...]]] = {
    "memory": (_memory(parts_inherit_acl=True, threads=4), ()),
    "memory-strict-parts": (_memory(parts_inherit_acl=False, threads=0), ()),
    "memory-decorated": (_decorated, ()),
    "portable": (_portable, (pytest.mark.sandbox,)),
}
"""Name, what makes the case from pytest's ``request``, and the marks of its tests."""


@pytest.fixture(params=[pytest.param(name, id=name, marks=marks) for name, (_, marks) in STORE_CASES.items()])
def store_case(request: pytest.FixtureRequest) -> Iterator[StoreCase]:
    factory, _ = STORE_CASES[request.param]
    with factory(request) as case:
        try:
            yield case
        finally:
            case.close()


@pytest.fixture
def files() -> MemorySource:
    """Source files that a test can change while they are open."""
    return MemorySource()


@pytest.fixture
def opened(files: MemorySource) -> Callable[..., OpenFile]:
    """Writes a source file, scans it and opens it: ``opened(b"...", name="a.csv")``."""

    def make(data: bytes, name: str = "file") -> OpenFile:
        files.write(name, data)
        scanned = next(file for file in files.scan(Period.none()) if file.name == name)
        return files.open(scanned)

    return make
