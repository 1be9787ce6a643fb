"""Outages that stop every customer at once, such as rejected AWS credentials or an unreachable ledger."""

import threading
from typing import TYPE_CHECKING

from xmode_transfer import telemetry
from xmode_transfer.model.errors import VendorIdentityError, XmodeError
from xmode_transfer.model.records import Failure
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context
from xmode_transfer.transfer.sending import failure_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Outages:
    """Logs an outage once instead of once per customer. Any thread may call ``report``; one thread calls
    ``recover``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.began: list[Callable[[], None]] = []
        """Callbacks for a new outage."""
        self.ended: list[Callable[[], None]] = []
        """Callbacks for recovery. They run after ``current`` is cleared."""
        self._lock = threading.RLock()
        self._current: Failure | None = None

    @property
    def current(self) -> Failure | None:
        """The outage in progress, if any."""
        return self._current

    def report(self, error: XmodeError) -> bool:
        """Record an outage; return True if it is new."""
        with self._lock:
            if self._current is not None:
                return False
            if isinstance(error, VendorIdentityError) and self._identity_is_valid():
                return False  # the keys were replaced meanwhile, and the new ones are in use now
            self._current = failure_of(error)
        telemetry.error(Event.OUTAGE_BEGAN, **error.log_context())
        for notify in self.began:
            notify()
        return True

    def recover(self) -> None:
        """Check whether the outage is over. Does nothing when there is none."""
        outage = self._current
        if outage is None:
            return
        try:
            self._context.ledger.prove_writable()
            self._context.sessions.verify_identity()
        except XmodeError as error:
            if error.code != outage.cause:
                self._current = failure_of(error)
                telemetry.error(Event.OUTAGE_BEGAN, **error.log_context())
            return
        self._current = None
        telemetry.log(Event.OUTAGE_RECOVERED, cause=outage.cause)
        for notify in self.ended:
            notify()

    def _identity_is_valid(self) -> bool:
        try:
            self._context.sessions.verify_identity()
        except XmodeError:
            return False
        return True
