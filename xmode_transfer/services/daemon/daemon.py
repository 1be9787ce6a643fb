"""What the daemon does at each tick, and what it shows of itself."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from xmode_transfer import telemetry
from xmode_transfer.domain.backoff import broke_off
from xmode_transfer.domain.config import CatchUp, Configuration, CustomerState, Problem
from xmode_transfer.domain.config.reload import is_moved, reloaded
from xmode_transfer.domain.daemons import DaemonRecord
from xmode_transfer.domain.errors import ConfigError, LedgerError, VendorIdentityError, XmodeError
from xmode_transfer.domain.findings import AccessReport
from xmode_transfer.domain.records import Delivery, Failure, Lease, Status
from xmode_transfer.domain.schedule import Outage, Work, outage, was_missed
from xmode_transfer.ports import Prober
from xmode_transfer.ports.board import Pulse, Turn, TurnState
from xmode_transfer.services.daemon.agenda import Agenda
from xmode_transfer.services.daemon.crew import Crew
from xmode_transfer.services.daemon.house import House
from xmode_transfer.services.daemon.in_use import InUse, Read, tell_of_reload
from xmode_transfer.services.daemon.turns import TurnEnd, Turns
from xmode_transfer.services.sending import failure_of
from xmode_transfer.services.workbench import Workbench
from xmode_transfer.telemetry import Event

_OPEN = (Status.PLANNED, Status.RUNNING, Status.FAILED, Status.BLOCKED)


class Daemon:
    """Implements ``ports.Board``. ``tick``, ``mend``, ``attend`` and ``reload`` are called by one thread; the
    rest by any."""

    def __init__(
        self,
        bench: Workbench,
        prober: Prober,
        configuration: Configuration,
        read: Read,
        lease: Lease,
        *,
        changed: Callable[[], None],
    ) -> None:
        """``lease`` is the right to be the one daemon of this ledger. ``changed`` is called, from any thread,
        when something that health is computed from is other than before."""
        self._bench = bench
        self._read = read
        self._lease = lease
        self._changed = changed
        now = bench.clock.now()
        self._in_use = InUse.of(configuration, now, configuration.problems)
        self._lock = threading.RLock()
        self._trouble: Failure | None = None
        self._stopping = False
        self._started_at = self._ticked_at = now
        known = bench.ledger.daemons(1)
        self._ticked_before = known[0].ticked_at if known else None
        self._missed: dict[str, Outage] = {}
        self._serving: dict[str, datetime] = {}
        self._refused: set[str] = set()
        self._agenda = Agenda(bench.ledger.served())
        self._turns = Turns(bench, lambda: self._in_use.configuration)
        self._crew = Crew(
            bench,
            self._turns,
            configuration.service.daemon.workers,
            ended=self._turn_ended,
            trouble=self._found_trouble,
        )
        self._house = House(
            bench,
            prober,
            lambda: self._in_use.configuration,
            served=self._served,
            checked=self._checked,
            trouble=self._found_trouble,
        )
        self._seat()
        self._remember()

    @property
    def configuration(self) -> Configuration:
        """What is in use now."""
        return self._in_use.configuration

    # --- The tick ----------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """Looks who is due, and gives them turns. Answers whether the ledger took our sign of life: only then
        has the daemon got on. Raises LeaseLost when another daemon has taken over."""
        now = self._bench.clock.now()
        gap = outage(self._ticked_before, now)
        if gap is not None:
            telemetry.warn(Event.OUTAGE_ENDED, began_at=gap.began_at, ended_at=gap.ended_at)
            self._miss(gap)
        self._ticked_at = self._ticked_before = now
        try:
            if self._trouble is None:
                self._make_up()
        except (VendorIdentityError, LedgerError) as error:
            self._found_trouble(error)
        try:
            self._note(now)
        except LedgerError as error:
            self._found_trouble(error)
            return False
        if self._trouble is None and not self._stopping:
            self._call_who_is_due(now)
        return True

    def mend(self) -> None:
        """Tries whether what stops all customers is over. Costs nothing while nothing does."""
        trouble = self._trouble
        if trouble is None:
            return
        try:
            self._bench.ledger.prove_writable()
            self._bench.sessions.verify_identity()
        except XmodeError as error:
            if error.code != trouble.cause:
                self._trouble = failure_of(error)
                telemetry.error(Event.TROUBLE_BEGAN, **error.log_context())
            return
        self._trouble = None
        telemetry.log(Event.TROUBLE_ENDED, cause=trouble.cause)
        self._changed()
        self._crew.resume()

    def attend(self) -> None:
        """Sees to the running turns; every second or so."""
        self._crew.attend(self.configuration.service.daemon.turn_seconds)

    def wake(self, name: str) -> None:
        """A time of the customer's schedule has come."""
        now = self._bench.clock.now()
        if self._trouble is None and not self._stopping and name in self.configuration.customers:
            self._call_if_due(name, now)

    def _note(self, now: datetime, *, stopped: bool = False) -> None:
        in_use = self._in_use
        self._bench.ledger.note_daemon(
            self._lease,
            DaemonRecord(
                holder=self._bench.holder,
                started_at=self._started_at,
                ticked_at=now,
                tick_seconds=in_use.configuration.service.daemon.tick_seconds,
                workers=self._crew.workers,
                busy=self._crew.busy,
                configuration_loaded_at=in_use.loaded_at,
                configuration_problems=in_use.problems,
                trouble=self._trouble,
                stopping=self._stopping,
                stopped_at=now if stopped else None,
            ),
        )

    def _call_who_is_due(self, now: datetime) -> None:
        for name, customer in self.configuration.customers.items():
            if customer.state is CustomerState.RETIRED:
                continue
            self._house_keeping(name, Work.CHECK_ACCESS, now)
            if customer.state is CustomerState.ACTIVE:
                self._house_keeping(name, Work.CLEANUP, now)
                self._call_if_due(name, now)

    def _house_keeping(self, name: str, work: Work, now: datetime) -> None:
        times = self._in_use.times.get((name, work))
        if times is None:
            return
        if self._agenda.first_time(name, work):
            self._agenda.serve(name, work, times.last(now))  # its first time is the next one
        due = self._agenda.due(name, work, times, now)
        if due is not None:
            self._house.ask(name, work, due)

    def _call_if_due(self, name: str, now: datetime) -> None:
        turn = self._crew.turn(name)
        if turn is None or turn.state in (TurnState.RUNNING, TurnState.QUEUED) or name in self._missed:
            return
        may_retry = turn.next_at is not None and (turn.next_at <= now or turn.since_at > now)
        if turn.state is TurnState.BROKEN_OFF:
            if may_retry:
                self._crew.call(name)
            return
        times = self._in_use.times[name, Work.DELIVER]
        due = self._agenda.due(name, Work.DELIVER, times, now) if times is not None else None
        if due is not None:
            self._serving[name] = due
        if times is None or due is not None or may_retry:
            self._crew.call(name)

    # --- After an outage ---------------------------------------------------------------------------------

    def _miss(self, gap: Outage) -> None:
        for name, customer in self.configuration.customers.items():
            if customer.catch_up is not CatchUp.ALL and customer.state is CustomerState.ACTIVE:
                times = self._in_use.times[name, Work.DELIVER]
                if was_missed(times, gap):
                    self._missed.setdefault(name, gap)

    def _make_up(self) -> None:
        """Carries out ``catch_up`` for those who were missed, before they get a turn."""
        for name in list(self._missed):
            if name in self.configuration.customers:
                self._turns.pass_over(name)
            del self._missed[name]

    # --- What came of it ---------------------------------------------------------------------------------

    def _turn_ended(self, name: str, end: TurnEnd) -> None:
        if end.looked:
            due = self._serving.pop(name, None)
            if due is not None:
                self._served(name, Work.DELIVER, due)
        if end.broken_off:
            if name not in self._refused:
                self._refused.add(name)
                telemetry.warn(
                    Event.CUSTOMER_BROKEN_OFF,
                    customer=name,
                    feed=end.feed,
                    period=end.period,
                    message=end.reason,
                    next_at=end.next_at,
                )
                self._changed()
                if end.refused:
                    self._house.ask(name, Work.CHECK_ACCESS)
        elif name in self._refused and (end.looked or end.again):
            self._refused.discard(name)
            telemetry.log(Event.CUSTOMER_RESUMED, customer=name)
            self._changed()

    def _served(self, name: str, work: Work, due: datetime) -> None:
        self._bench.ledger.serve(name, str(work), due)
        self._agenda.serve(name, work, due)

    def _checked(self, report: AccessReport) -> None:
        """A check that finds all in order is a reason to try again at once."""
        turn = self._crew.turn(report.customer)
        if report.outcome == "ok" and turn is not None and turn.state is TurnState.BROKEN_OFF:
            self._hurry(report.customer)

    def _hurry(self, name: str) -> None:
        self._turns.hurry(name)
        self._crew.call(name)

    def _found_trouble(self, error: XmodeError) -> None:
        """What stops all customers is told once, not by each."""
        with self._lock:
            if self._trouble is not None:
                return
            if isinstance(error, VendorIdentityError) and self._identity_holds():
                return  # the keys were changed meanwhile, and the new ones are in use now
            self._crew.pause()
            self._trouble = failure_of(error)
            telemetry.error(Event.TROUBLE_BEGAN, **error.log_context())
            self._changed()

    def _identity_holds(self) -> bool:
        try:
            self._bench.sessions.verify_identity()
        except XmodeError:
            return False
        return True

    # --- The configuration -------------------------------------------------------------------------------

    def reload(self, *, hurry: bool = False) -> None:
        """Reads the files again and takes over what is in order. ``hurry`` when a person asked for it: then
        those who are broken off are tried at once."""
        before = self._in_use
        now = self._bench.clock.now()
        problems: tuple[Problem | str, ...]
        try:
            fresh, stopping = self._read()
        except ConfigError as error:
            problems, configuration = (error.problems or (error.message,)), before.configuration
        else:
            problems = fresh.problems
            configuration = before.configuration if stopping else reloaded(before.configuration, fresh)
        self._in_use = InUse.of(configuration, now, problems)
        tell_of_reload(before, self._in_use)
        try:
            self._note(self._ticked_at)  # health is computed from the ledger: it must have the problems first
        except LedgerError as error:
            self._found_trouble(error)
        self._changed()
        for name in before.configuration.customers:
            if is_moved(before.configuration, configuration, name):
                self._crew.stop(name)
                self._turns.forget(name)
        self._seat()
        for turn in self._crew.turns():
            old, new = (c.customers.get(turn.customer) for c in (before.configuration, configuration))
            if turn.state is TurnState.BROKEN_OFF and (hurry or old != new):
                self._hurry(turn.customer)

    def _seat(self) -> None:
        customers = self.configuration.customers.values()
        active = {c.name: c.weight for c in customers if c.state is CustomerState.ACTIVE}
        self._crew.seat(active)

    def _remember(self) -> None:
        """What the last daemon left: deliveries to go on with, and customers who refused us."""
        now = self._bench.clock.now()
        waits: dict[str, Delivery] = {}
        for delivery in self._bench.ledger.deliveries(statuses=_OPEN):
            known = waits.get(delivery.customer)
            if known is None or (broke_off(delivery), delivery.period) > (broke_off(known), known.period):
                waits[delivery.customer] = delivery
        for name, delivery in waits.items():
            if broke_off(delivery):
                assert delivery.failure is not None
                state, reason = TurnState.BROKEN_OFF, delivery.failure.message
                self._refused.add(name)
            else:
                state, reason = TurnState.RESTING, ""
            since = min(delivery.updated_at, now)
            next_at = min(delivery.next_attempt_at or now, now + timedelta(days=1))
            self._crew.rest(name, Turn(name, state, since, next_at, delivery.feed, delivery.period, reason))

    # --- The end -----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Nothing begins any more; what runs goes on."""
        self._stopping = True
        self._crew.close()
        self._house.stop()

    def drain(self, seconds: float) -> bool:
        """Waits for what runs; whether all of it has ended."""
        began = self._bench.clock.monotonic()
        ended = self._crew.wait(seconds)
        left = seconds - (self._bench.clock.monotonic() - began)
        return self._house.wait(max(0.0, left)) and ended

    def break_off(self) -> None:
        """Stops what still runs where it can be resumed."""
        self._bench.stop.set()
        self._crew.stop_all()

    def close(self) -> None:
        """Notes the end in the ledger."""
        self._note(self._bench.clock.now(), stopped=True)

    # --- The board ---------------------------------------------------------------------------------------

    @property
    def trouble(self) -> Failure | None:
        """What of ours stops all customers at this moment."""
        return self._trouble

    def turns(self) -> Sequence[Turn]:
        return [self._with_next_time(turn) for turn in self._crew.turns()]

    def _with_next_time(self, turn: Turn) -> Turn:
        if turn.state is not TurnState.RESTING or turn.next_at is not None:
            return turn
        times = self._in_use.times.get((turn.customer, Work.DELIVER))
        if times is None:
            tick = timedelta(seconds=self.configuration.service.daemon.tick_seconds)
            next_at = self._ticked_at + tick
        else:
            next_at = self._agenda.next_time(turn.customer, Work.DELIVER) or times.next(self._ticked_at)
        return Turn(turn.customer, turn.state, turn.since_at, next_at)

    def pulse(self) -> Pulse:
        in_use = self._in_use
        return Pulse(
            started_at=self._started_at,
            ticked_at=self._ticked_at,
            stopping=self._stopping,
            workers=self._crew.workers,
            busy=self._crew.busy,
            configuration_loaded_at=in_use.loaded_at,
            configuration_problems=in_use.problems,
        )
