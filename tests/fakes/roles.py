"""The cloud's side of AssumeRole: roles with their policies, and the sessions that were given out."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from xmode_transfer.aws.policy.evaluate import assume_role
from xmode_transfer.aws.sessions import Credentials
from xmode_transfer.model.errors import RoleRefused
from xmode_transfer.model.process import Clock

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MemoryRole:
    """A customer's role as IAM holds it."""

    arn: str
    trust_policy: Document
    permission_policies: tuple[Document, ...]
    max_session_seconds: int = 3600


@dataclass(frozen=True, slots=True)
class MemorySession:
    """A role session: the role's policies as they are now, cut down by the session policy."""

    role: MemoryRole
    session_policy: Document | None
    expires_at: datetime
    access_key_id: str = field(repr=False)

    @property
    def principal(self) -> str:
        _, partition, _, _, account, resource = self.role.arn.split(":", 5)
        return f"arn:{partition}:sts::{account}:assumed-role/{resource.rpartition('/')[2]}/xmode-transfer"


class MemoryRoles:
    """Every account's roles, and who holds a session of which. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._roles: dict[str, MemoryRole] = {}
        self._sessions: dict[str, MemorySession] = {}

    def put(
        self,
        arn: str,
        *,
        trust_policy: Document,
        permission_policies: Sequence[Document],
        max_session_seconds: int = 3600,
    ) -> MemoryRole:
        """Makes the role, or changes its policies: running sessions see the change at once."""
        role = MemoryRole(arn, trust_policy, tuple(permission_policies), max_session_seconds)
        with self._lock:
            self._roles[arn] = role
        return role

    def delete(self, arn: str) -> None:
        """Takes the role away; its sessions end with it. Raises KeyError when there is none."""
        with self._lock:
            del self._roles[arn]

    def assume(
        self,
        role_arn: str,
        *,
        principal: str,
        external_id: str | None,
        session_policy: Document | None = None,
        duration_seconds: int = 3600,
    ) -> Credentials:
        """AssumeRole as STS answers it. Raises RoleRefused with one message for every cause, as AWS does."""
        with self._lock:
            role = self._roles.get(role_arn)
            trusted = role is not None and assume_role(
                role.trust_policy, principal=principal, role_arn=role_arn, external_id=external_id
            )
            if role is None or not trusted or not trusted.allowed:
                raise RoleRefused(
                    f"AWS refuses AssumeRole on {role_arn}: the role is not there, does not trust "
                    f"{principal}, or wants another external ID",
                    hint="Ask the customer to compare the role and its trust policy with the setup guide",
                    aws_code="AccessDenied",
                    http_status=403,
                )
            if not 900 <= duration_seconds <= role.max_session_seconds:
                raise RoleRefused(
                    f"AWS refuses a session of {duration_seconds} seconds on {role_arn}",
                    hint=f"The role allows at most {role.max_session_seconds} seconds",
                    aws_code="ValidationError",
                    http_status=400,
                )
            key = f"ASIA{len(self._sessions):016d}"
            expires_at = self.clock.now() + timedelta(seconds=duration_seconds)
            self._sessions[key] = MemorySession(role, session_policy, expires_at, key)
            return Credentials(key, f"secret-{key}", f"token-{key}", expires_at)

    def session(self, credentials: Credentials) -> MemorySession | None:
        """The session that these credentials belong to, with the role as it is now; None when it has ended
        or is nobody's."""
        with self._lock:
            session = self._sessions.get(credentials.access_key_id)
            if session is None or self.clock.now() >= session.expires_at:
                return None
            role = self._roles.get(session.role.arn)
            if role is None:
                return None
            return MemorySession(role, session.session_policy, session.expires_at, session.access_key_id)

    def revoke(self, credentials: Credentials) -> None:
        """Ends one session before its time."""
        with self._lock:
            self._sessions.pop(credentials.access_key_id, None)
