"""What can be wrong with a customer's access: one catalogue of causes, each with its party, gravity, sentence
and mending, filled in with the customer's own values.

The check of the access and the lint of pasted documents name the same causes with the same words.
"""

from xmode_transfer.domain.findings.catalogue import finding
from xmode_transfer.domain.findings.fixes import POLICY_NAME
from xmode_transfer.domain.findings.records import (
    Cause,
    Facts,
    Finding,
    Fix,
    Result,
    Severity,
    facts_of,
)
from xmode_transfer.domain.findings.report import (
    DISPROVED_BY_SENDING,
    UNSAFE,
    AccessReport,
    Change,
    Leftover,
    LeftoverKind,
    changes,
)
from xmode_transfer.domain.findings.verdict import exit_code, outcome, passed, skipped, unanswered, unknown
