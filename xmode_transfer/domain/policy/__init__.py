"""AWS policies as values: the documents we ask for, the sessions we open, and what a policy decides."""

from xmode_transfer.domain.policy.sessions import (
    SESSION_POLICY_MAX_CHARACTERS,
    Step,
    compact,
    session_policy,
)

__all__ = ["SESSION_POLICY_MAX_CHARACTERS", "Step", "compact", "session_policy"]
