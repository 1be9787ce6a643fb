"""Role sessions from ``MemoryRoles``."""

import threading
from datetime import UTC, datetime, timedelta

from tests.fakes.faults import Fault, Faults, Requests
from tests.fakes.roles import MemoryRoles
from xmode_transfer.aws.policy.documents import VENDOR_PRINCIPAL, Step, compact, step_policy
from xmode_transfer.aws.sessions import Credentials, CredentialsProvider
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import OtherPrincipal, Unavailable, VendorIdentityError, XmodeError

REFRESH_MARGIN_SECONDS = 300
"""Credentials with less life left than this are renewed before they are given out."""


class MemoryRoleSessions:
    """Role sessions as of ``aws.sts.RoleSessions``. ``identity`` is the owner of our credentials (None: there
    are none), ``principal`` the configured vendor principal."""

    def __init__(
        self,
        roles: MemoryRoles,
        *,
        identity: str | None = VENDOR_PRINCIPAL,
        principal: str = VENDOR_PRINCIPAL,
        duration_seconds: int = 3600,
        faults: Faults | None = None,
    ) -> None:
        self.roles = roles
        self.identity = identity
        self.principal = principal
        self.duration_seconds = duration_seconds
        self.requests = Requests(faults)

    def verify_identity(self) -> str:
        if self.identity is None:
            raise VendorIdentityError(
                "there are no AWS credentials of ours",
                hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            )
        if self.identity != self.principal:
            raise OtherPrincipal(
                f"our AWS credentials belong to {self.identity}, not to {self.principal}",
                hint="Use the vendor principal's keys, or correct vendor.principal_arn",
            )
        return self.identity

    def open(self, customer: Customer, step: Step) -> "MemoryCredentialsProvider":
        return MemoryCredentialsProvider(self, customer, step)

    def share_budget(self, participants: int) -> None:
        """There is no budget to share."""


class MemoryCredentialsProvider(CredentialsProvider):
    """The credentials of one customer for one step."""

    def __init__(self, sessions: MemoryRoleSessions, customer: Customer, step: Step) -> None:
        self._sessions = sessions
        self._customer = customer
        self._lock = threading.Lock()
        self._current: Credentials | None = None
        self._policy = step_policy(customer, step)
        compact(self._policy)  # refuses what AWS would refuse

    def get(self) -> Credentials:
        with self._lock:
            now = self._sessions.roles.clock.now()
            if self._current is None or self._current.expires_at - now < timedelta(
                seconds=REFRESH_MARGIN_SECONDS
            ):
                self._current = self._open()
            return self._current

    def invalidate(self, credentials: Credentials) -> None:
        with self._lock:
            if self._current == credentials:
                self._current = None

    def _open(self) -> Credentials:
        identity = self._sessions.verify_identity()
        fault = self._sessions.requests.begin("assume_role", self._customer.name)
        credentials = self._sessions.roles.assume(
            self._customer.role_arn,
            principal=identity,
            external_id=self._customer.external_id,
            session_policy=self._policy,
            duration_seconds=self._sessions.duration_seconds,
        )
        if fault is Fault.LOSE_ANSWER:
            raise Unavailable("the answer of AssumeRole was lost", hint="It is tried again")
        return credentials


class Provider(CredentialsProvider):
    """Gives numbered credentials without any call; a new number after each that is reported dead."""

    def __init__(self, name: str = "ASIA") -> None:
        self.name = name
        self.number = 0
        self.asked = 0
        self.reported: list[Credentials] = []
        self.refusal: XmodeError | None = None
        self.expires_at = datetime(2099, 1, 1, tzinfo=UTC)

    def get(self) -> Credentials:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        return Credentials(f"{self.name}{self.number}", "secret", "token", self.expires_at)

    def invalidate(self, credentials: Credentials) -> None:
        self.reported.append(credentials)
        self.number += 1
