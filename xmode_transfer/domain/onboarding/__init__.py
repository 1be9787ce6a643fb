"""Signing a customer up: the checks of what was told, its file, and the kit that it sets its side up with."""

from xmode_transfer.domain.onboarding.kit import PROGRAMS, kit
from xmode_transfer.domain.onboarding.sign_up import (
    FROM_COMPANY,
    GENERATED,
    Mistake,
    SignUp,
    drafted,
    guide_external_id,
    slug_of,
)
from xmode_transfer.domain.onboarding.written import customer_file
