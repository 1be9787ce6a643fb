"""AWS policies as values: the documents we ask for, the sessions we open, and what a policy decides."""

from xmode_transfer.aws.policy.calls import S3Call, decide, requests, strictest
from xmode_transfer.aws.policy.documents import (
    ACL,
    SESSION_POLICY_MAX_CHARACTERS,
    VENDOR_PRINCIPAL,
    Step,
    compact,
    corrected_permission_policy,
    corrected_trust_policy,
    guide_permission_policy,
    guide_trust_policy,
    session_policy,
)
from xmode_transfer.aws.policy.evaluate import (
    Decision,
    Outcome,
    PolicyKind,
    Request,
    allowed,
    assume_role,
    evaluate,
)
