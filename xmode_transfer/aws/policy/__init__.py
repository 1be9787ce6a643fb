"""AWS policies as values: the documents that we recommend, session policies, and what policies decide."""

from xmode_transfer.aws.policy.documents import (
    ACL,
    SESSION_POLICY_MAX_CHARACTERS,
    VENDOR_PRINCIPAL,
    SetupValues,
    Step,
    compact,
    corrected_permission_policy,
    corrected_trust_policy,
    guide_permission_policy,
    guide_trust_policy,
    session_policy,
    setup_values,
    step_policy,
)
from xmode_transfer.aws.policy.evaluate import (
    Decision,
    Outcome,
    PolicyKind,
    Request,
    S3Call,
    allowed,
    assume_role,
    decide,
    evaluate,
    requests,
    strictest,
)
