"""The sandbox's one error."""

from xmode_transfer.domain.errors import ExitCode, XmodeError


class SandboxError(XmodeError):
    """The sandbox cannot be installed, started, found or stopped. Nothing of a customer is concerned."""

    code = "sandbox"
    exit_code = ExitCode.USAGE
