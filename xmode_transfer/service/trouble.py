"""What of ours stops all customers at once, such as an AWS key that is refused or a ledger that is gone."""

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


class Trouble:
    """Told once, not by each customer. ``found`` is called by any thread, ``mend`` by one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.began: list[Callable[[], None]] = []
        """Called when there is a new one."""
        self.ended: list[Callable[[], None]] = []
        """Called when it is over, and nobody sees it any more."""
        self._lock = threading.RLock()
        self._now: Failure | None = None

    @property
    def now(self) -> Failure | None:
        """What it is at this moment."""
        return self._now

    def found(self, error: XmodeError) -> bool:
        """Somebody met it. Answers whether that is new."""
        with self._lock:
            if self._now is not None:
                return False
            if isinstance(error, VendorIdentityError) and self._identity_holds():
                return False  # the keys were changed meanwhile, and the new ones are in use now
            self._now = failure_of(error)
        telemetry.error(Event.OUTAGE_BEGAN, **error.log_context())
        for tell in self.began:
            tell()
        return True

    def mend(self) -> None:
        """Tries whether it is over. Costs nothing while there is none."""
        trouble = self._now
        if trouble is None:
            return
        try:
            self._context.ledger.prove_writable()
            self._context.sessions.verify_identity()
        except XmodeError as error:
            if error.code != trouble.cause:
                self._now = failure_of(error)
                telemetry.error(Event.OUTAGE_BEGAN, **error.log_context())
            return
        self._now = None
        telemetry.log(Event.OUTAGE_RECOVERED, cause=trouble.cause)
        for tell in self.ended:
            tell()

    def _identity_holds(self) -> bool:
        try:
            self._context.sessions.verify_identity()
        except XmodeError:
            return False
        return True
