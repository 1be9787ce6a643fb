"""The kit that a customer sets its side up with: every file with the customer's own values, none to fill in.

All ways make the same role: the trust policy and the inline permission policy of ``domain/policy``.
"""

from xmode_transfer.domain.config.customer import Customer
from xmode_transfer.domain.onboarding.instructions import instructions
from xmode_transfer.domain.onboarding.page import html_page, markdown
from xmode_transfer.domain.onboarding.script import setup_script
from xmode_transfer.domain.onboarding.templates import cloudformation, terraform
from xmode_transfer.domain.onboarding.values import KitValues
from xmode_transfer.domain.onboarding.written import json_text

PROGRAMS = frozenset({"setup.sh"})
"""The files that are run."""


def kit(customer: Customer, principal: str) -> dict[str, str]:
    """The files of the kit by name. ``principal`` is the ARN of our own user."""
    values = KitValues(customer, principal)
    page = instructions(values)
    files = {
        "README.md": markdown(page),
        "index.html": html_page(page),
        "trust-policy.json": json_text(values.trust_policy),
        "permission-policy.json": json_text(values.permission_policy),
        "lifecycle.json": json_text(values.lifecycle),
        "setup.sh": setup_script(values),
        "template.yaml": cloudformation(values),
        "main.tf": terraform(values),
    }
    if values.key_statement is not None:
        files["key-policy-statement.json"] = json_text(values.key_statement)
    return files
