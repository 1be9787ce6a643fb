"""The adapters that stand behind each port, each as a case that the port's suite runs against.

A new adapter of ``ObjectStore`` plugs in by one more entry in ``STORE_CASES``.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from tests.bucket import empty_bucket, put_object, remove_customer, set_permission_policy
from tests.fakes import (
    MemoryBuckets,
    MemoryClock,
    MemoryObjectStores,
    MemoryRoles,
    MemoryRoleSessions,
    MemorySource,
    StoredVersion,
)
from xmode_transfer.aws import s3_objects
from xmode_transfer.aws.checksums import OpenFile
from xmode_transfer.aws.policy.documents import Step, corrected_permission_policy, guide_trust_policy
from xmode_transfer.aws.s3_fast.store import FastStores
from xmode_transfer.aws.s3_portable import PortableStores
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.aws.stores import FULL_CONTROL, Grant, ObjectAcl, ObjectStore, ObjectStores
from xmode_transfer.aws.sts import RoleSessions
from xmode_transfer.config import Customer, Destination, Limits, Vendor
from xmode_transfer.ledger import open_ledger
from xmode_transfer.ledger.postgres import PostgresDatabase
from xmode_transfer.model.errors import RoleRefused
from xmode_transfer.model.periods import Period
from xmode_transfer.sandbox.accounts import add_customer, client, forget, owner, permission_policy
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox, Variant
from xmode_transfer.telemetry import SystemClock

Document = dict[str, Any]


@dataclass
class StoreCase:
    """One adapter in front of one customer's fresh bucket, whose role has the corrected permission policy.

    The functions do what the customer does on its own side: ``grant`` replaces the role's permission policy,
    ``customer_puts`` writes an object that is not ours, ``customer_deletes`` removes one, ``customer_shares``
    lets somebody else read one, ``turn_versioning_on``, ``delete_bucket``.
    ``page_size`` is how many rows one page of a listing has at most. The flags say what the far side does:

    ``answers_checksum``  the answer to an upload carries the checksum that S3 has computed
    ``parts_allowed``     parts pass under the guide's policy, with its condition on the ACL
    ``knows_ended_uploads``  an upload that has ended is told from trouble of the store's own (moto: 500)
    """

    name: str
    customer: Customer
    stores: ObjectStores
    sessions: RoleSessions
    grant: Callable[[Document], None]
    customer_puts: Callable[[str, bytes], None]
    customer_deletes: Callable[[str], None]
    customer_shares: Callable[[str], None]
    turn_versioning_on: Callable[[], None]
    delete_bucket: Callable[[], None]
    page_size: int = 1000
    answers_checksum: bool = True
    parts_allowed: bool = True
    knows_ended_uploads: bool = True
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

        def customer_shares(key: str) -> None:
            version = bucket.current(key)
            assert version is not None
            grants = {Grant(bucket.owner, FULL_CONTROL), Grant("somebody-else", "READ")}
            bucket.store(replace(version, granted=ObjectAcl(bucket.owner, frozenset(grants))))

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
            lambda key: bucket.remove(key, clock.now()) and None,
            customer_shares,
            turn_versioning_on,
            lambda: buckets.delete("acme-data"),
            page_size=3,
            parts_allowed=parts_inherit_acl,
        )

    return case


def _sandboxed(
    engine: Callable[..., ObjectStores],
) -> Callable[..., AbstractContextManager[StoreCase]]:
    @contextmanager
    def case(request: pytest.FixtureRequest) -> Iterator[StoreCase]:
        with _on_sandbox(request, engine) as made:
            yield made

    return case


class _Customers:
    """Customers of the local AWS, used by one test after the other: making one and removing it takes more
    requests than a test. Each test finds an empty bucket and the policy of the variant; a test that changes
    more says so with ``spoil``."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._numbers = count(600_000_000_001)
        self._free: list[CustomerSetup] = []
        self._spoiled = False
        self._granted = False

    @contextmanager
    def one(self) -> Iterator[CustomerSetup]:
        setup = self._free.pop() if self._free else self._make()
        self._spoiled = self._granted = False
        try:
            yield setup
        except BaseException:
            self._spoiled = True
            raise
        finally:
            if self._spoiled:
                self._remove(setup)
            else:
                empty_bucket(setup)
                if self._granted:
                    set_permission_policy(setup, permission_policy(setup))
                self._free.append(setup)

    def spoil(self) -> None:
        self._spoiled = True

    def grant(self, setup: CustomerSetup, document: Document) -> None:
        self._granted = True
        set_permission_policy(setup, document)

    def close(self) -> None:
        while self._free:
            self._remove(self._free.pop())

    def _make(self) -> CustomerSetup:
        account = str(next(self._numbers))
        how = {"account": account, "bucket": f"acme-{account}", "company": "Acme Corp"}
        made = add_customer(self._sandbox, "kept", Variant.ABORT_GRANTED, **how)
        self._sandbox.customers.remove(made)  # of which other tests know nothing
        self._sandbox.save()
        return made

    def _remove(self, setup: CustomerSetup) -> None:
        self._sandbox.customers.append(setup)
        remove_customer(self._sandbox, setup)


@pytest.fixture(scope="session")
def kept_customers(sandbox: Sandbox) -> Iterator[_Customers]:
    kept = _Customers(sandbox)
    yield kept
    kept.close()


@contextmanager
def _on_sandbox(request: pytest.FixtureRequest, engine: Callable[..., ObjectStores]) -> Iterator[StoreCase]:
    """An engine and real role sessions, on the local AWS with authorisation."""
    customers = request.getfixturevalue("kept_customers")
    request.getfixturevalue("as_vendor")
    with customers.one() as setup:
        yield _sandbox_case(request, engine, customers, setup)


def _sandbox_case(
    request: pytest.FixtureRequest,
    engine: Callable[..., ObjectStores],
    customers: _Customers,
    setup: CustomerSetup,
) -> StoreCase:
    customer = Customer(
        name="acme",
        company=setup.company,
        external_id=setup.external_id,
        role_arn=setup.role_arn,
        destination=Destination(bucket=setup.bucket, prefix=setup.prefix, region=setup.region),
        feeds=("us-daily",),
    )
    clock = SystemClock()
    s3 = owner(setup, "s3")

    def delete_bucket() -> None:
        customers.spoil()
        empty_bucket(setup)
        s3.delete_bucket(Bucket=setup.bucket)

    def turn_versioning_on() -> None:
        customers.spoil()
        s3.put_bucket_versioning(Bucket=setup.bucket, VersioningConfiguration={"Status": "Enabled"})

    def customer_shares(key: str) -> None:
        customers.spoil()
        rules = {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
        s3.put_bucket_ownership_controls(Bucket=setup.bucket, OwnershipControls=rules)
        found = s3.get_object_acl(Bucket=setup.bucket, Key=key)
        more = {"Grantee": {"Type": "CanonicalUser", "ID": "a" * 64}, "Permission": "READ"}
        changed = {"Owner": found["Owner"], "Grants": [*found["Grants"], more]}
        s3.put_object_acl(Bucket=setup.bucket, Key=key, AccessControlPolicy=changed)

    request.getfixturevalue("monkeypatch").setattr(s3_objects, "PAGE_ROWS", 7)
    stores = engine(Limits(), clock)
    return StoreCase(
        stores.info.name,
        customer,
        stores,
        RoleSessions(Vendor(), clock),
        lambda document: customers.grant(setup, document),
        lambda key, data: put_object(setup, key, data) and None,
        lambda key: s3.delete_object(Bucket=setup.bucket, Key=key) and None,
        customer_shares,
        turn_versioning_on,
        delete_bucket,
        page_size=7,
        answers_checksum=False,
        parts_allowed=False,
    )


class _AnySession:
    """moto's IAM says nothing about this contract (it lets everybody in), so anybody's keys will do."""

    def verify_identity(self) -> str:
        return Vendor().principal_arn

    def open(self, customer: Customer, step: Step) -> "_AnySession":
        return self

    def get(self) -> Credentials:
        return Credentials("AKIAANYBODY", "secret", "token", datetime(2099, 1, 1, tzinfo=UTC))

    def invalidate(self, credentials: Credentials) -> None:
        pass


class _RefusedSession(_AnySession):
    def get(self) -> Credentials:
        raise RoleRefused("the role wants another external ID")


class _MotoSessions(_AnySession):
    def open(self, customer: Customer, step: Step) -> _AnySession:
        return _AnySession() if customer.external_id == "AcmeCorp" else _RefusedSession()


_moto_buckets = count()


def _on_moto(
    engine: Callable[..., ObjectStores],
) -> Callable[..., AbstractContextManager[StoreCase]]:
    """An engine in front of moto, which knows how S3 behaves and refuses nobody."""

    @contextmanager
    def case(request: pytest.FixtureRequest) -> Iterator[StoreCase]:
        endpoint = request.getfixturevalue("moto_endpoint")
        request.getfixturevalue("monkeypatch").setenv("AWS_ENDPOINT_URL_S3", endpoint)
        name = f"acme-{next(_moto_buckets)}"
        customer = Customer(
            name="acme",
            company="Acme Corp",
            external_id="AcmeCorp",
            role_arn="arn:aws:iam::111122223333:role/XMode",
            destination=Destination(bucket=name, prefix="xmode/", region="us-east-1"),
            feeds=("us-daily",),
        )
        s3 = client("s3", endpoint=endpoint, access_key_id="a", secret_access_key="b", region="us-east-1")
        s3.create_bucket(Bucket=name)

        def delete_bucket() -> None:
            for row in s3.list_objects_v2(Bucket=name).get("Contents", ()):
                s3.delete_object(Bucket=name, Key=row["Key"])
            s3.delete_bucket(Bucket=name)

        request.getfixturevalue("monkeypatch").setattr(s3_objects, "PAGE_ROWS", 7)
        stores = engine(Limits(), SystemClock())
        yield StoreCase(
            f"{stores.info.name}-moto",
            customer,
            stores,
            _MotoSessions(),
            lambda document: None,
            lambda key, data: s3.put_object(Bucket=name, Key=key, Body=data) and None,
            lambda key: s3.delete_object(Bucket=name, Key=key) and None,
            lambda key: s3.put_object_acl(Bucket=name, Key=key, ACL="public-read") and None,
            lambda: s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"}),
            delete_bucket,
            page_size=7,
            knows_ended_uploads=False,
        )

    return case


STORE_CASES: dict[str, tuple[Callable[..., AbstractContextManager[StoreCase]], tuple[Any, ...]]] = {
    "memory": (_memory(parts_inherit_acl=True, threads=4), ()),
    "memory-strict-parts": (_memory(parts_inherit_acl=False, threads=0), ()),
    "portable": (_sandboxed(PortableStores), (pytest.mark.sandbox,)),
    "fast": (_sandboxed(FastStores), (pytest.mark.sandbox,)),
    "portable-moto": (_on_moto(PortableStores), ()),
    "fast-moto": (_on_moto(FastStores), ()),
}
"""Name, what makes the case from pytest's ``request``, and the marks of its tests."""


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    forget(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(params=[pytest.param(name, id=name, marks=marks) for name, (_, marks) in STORE_CASES.items()])
def store_case(request: pytest.FixtureRequest) -> Iterator[StoreCase]:
    factory, _ = STORE_CASES[request.param]
    with factory(request) as case:
        try:
            yield case
        finally:
            case.close()


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copied for each test: making its tables takes longer than most of them."""
    path = tmp_path_factory.mktemp("ledger") / "empty.db"
    open_ledger(f"sqlite:///{path}", SystemClock()).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place for a ledger in each database that one may lie in. On a server leases end by the server's
    clock; here they end by the test's (``tests/faults/test_postgres_outage.py`` tries the server's)."""
    if request.param == "sqlite":
        copied = shutil.copy(request.getfixturevalue("empty_ledger"), tmp_path / "ledger.db")
        return f"sqlite:///{copied}"
    monkeypatch.setattr(PostgresDatabase, "now", lambda self, connection, clock: clock.now())
    url: str = request.getfixturevalue("shared_ledger")
    return url


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
