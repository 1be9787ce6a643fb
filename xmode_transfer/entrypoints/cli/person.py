"""Who asks for something that the ledger records."""

import getpass
import os


def asking(by: str | None) -> str:
    """The name that was given, or else the user of the operating system, and who became it by sudo."""
    if by:
        return by
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    sudoer = os.environ.get("SUDO_USER")
    return f"{user} (sudo by {sudoer})" if sudoer and sudoer != user else user
