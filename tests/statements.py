"""The ledger's SQL, compiled once for this process and its forks.

SQLAlchemy compiles each statement once for each engine, that is for each ledger that is opened. A service
opens one. Tests open thousands, and compiling takes longer than what most of them do.
"""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Dialect


def keep_statements() -> None:
    """From now on ledgers share what was compiled for one of them."""
    import sqlalchemy
    from sqlalchemy.schema import CreateIndex, CreateTable

    from xmode_transfer.ledger import database
    from xmode_transfer.ledger.tables import metadata

    make_engine, shared = sqlalchemy.create_engine, _Compiled()
    compile_definition = CreateTable._compiler

    def create_engine(*arguments: Any, **how: Any) -> Any:
        engine = make_engine(*arguments, **how)
        engine._compiled_cache = shared
        return engine

    def prepared(self: Any) -> Any:
        statement, dialect = self._statement, self._database.dialect
        found = statement._generate_cache_key()
        if found is None:
            return statement.compile(dialect=dialect)
        values = tuple((bound.key, bound.value) for bound in found.bindparams)
        return shared.kept((dialect, found.key, values), lambda: statement.compile(dialect=dialect))

    def definition(self: Any, dialect: "Dialect", **how: Any) -> Any:
        made = self.element
        if metadata is not (made.table if isinstance(self, CreateIndex) else made).metadata:
            return compile_definition(self, dialect, **how)
        which = (
            type(self),
            made,
            self.if_not_exists,
            repr(vars(self).get("include_foreign_key_constraints")),
        )
        return shared.kept((dialect, which, repr(how)), lambda: compile_definition(self, dialect, **how))

    sqlalchemy.create_engine = create_engine
    CreateTable._compiler = CreateIndex._compiler = definition  # type: ignore[method-assign]
    once: cached_property[Any] = cached_property(prepared)
    once.__set_name__(database.Prepared, "_compiled")
    database.Prepared._compiled = once  # type: ignore[method-assign]


class _Compiled(dict[Any, Any]):
    """An engine's cache. Its keys begin with the engine's dialect, of which the kind counts here."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_of_kind(key), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_of_kind(key), value)

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        if (found := self.get(key)) is None:
            found = self[key] = make()
        return found


def _of_kind(key: Any) -> Any:
    dialect, *rest = key
    return (dialect.name, dialect.driver, dialect.paramstyle, *rest)


def compile_most() -> None:
    """What nearly every command does with its ledger, so that those forked from here find it compiled."""
    from xmode_transfer.ledger import open_ledger
    from xmode_transfer.model.records import Checksum, Delivery, PlannedObject, Receipt, Run, Status
    from xmode_transfer.telemetry import SystemClock

    now = datetime(2026, 1, 1, tzinfo=UTC)
    delivery = Delivery("d", "acme", "us-daily", "2026-01-01", 1, Status.RUNNING, now, now)
    of_period = ("acme", "us-daily", "2026-01-01")
    receipt = Receipt("a", "k", 1, Checksum("crc32", "AAAAAA=="), '"e"', now)
    with tempfile.TemporaryDirectory() as directory:
        ledger = open_ledger(f"sqlite:///{directory}/ledger.db", SystemClock())
        try:
            lease = ledger.leases.renew(ledger.leases.claim("work", "somebody", 60), 60)
            ledger.deliveries.create(lease, delivery)
            ledger.runs.start(lease, run := Run("r", "d", now, "h", "e"))
            ledger.objects.plan(lease, "d", [PlannedObject("a", "k", 1, 1, "i")])
            ledger.objects.totals("d")
            ledger.objects.record_receipt(lease, "d", receipt).result()
            for rows in (
                ledger.objects.planned("d"),
                ledger.objects.pending("d"),
                ledger.objects.left_out("d"),
            ):
                list(rows)
            list(ledger.objects.delivered(*of_period))
            ledger.keys.superseded("acme", "us-daily")
            ledger.deliveries.latest(*of_period)
            ledger.deliveries.update(lease, delivery)
            ledger.deliveries.find(customer="acme")
            ledger.runs.finish(lease, run)
            ledger.runs.newest("acme")
            ledger.leases.held("work")
            ledger.leases.release(lease)
            ledger.checks.last("acme")
            ledger.checks.capabilities("acme")
            ledger.daemons.newest()
            ledger.prove_writable()
            ledger.snapshot()
        finally:
            ledger.close()
