"""What can be wrong with a customer's access: one catalogue of causes, each with its party, gravity, sentence
and mending, filled in with the customer's own values.

The check of the access and the lint of pasted documents name the same causes with the same words.
"""

from xmode_transfer.domain.findings.catalogue import (
    NO_ID,
    OTHER_CASE,
    RANDOM_ID,
    SIMILAR_ID,
    finding,
    wrongly_accepted,
)
from xmode_transfer.domain.findings.facts import Facts, facts_of
from xmode_transfer.domain.findings.fixes import POLICY_NAME
from xmode_transfer.domain.findings.records import (
    DISPROVED_BY_SENDING,
    UNSAFE,
    AccessReport,
    Cause,
    Change,
    Finding,
    Fix,
    Leftover,
    LeftoverKind,
    Result,
    Severity,
    changes,
    exit_code,
    outcome,
    passed,
    skipped,
    unanswered,
    unknown,
)
