"""The metadata that a destination adds to each object."""

import re

METADATA_PATTERN = r"^(?!xmode-)[a-z0-9-]{1,128}$"
METADATA_MAX_BYTES = 2048
"""S3 User Guide, "Working with object metadata": the sum of all names and values of an object."""
DESTINATION_MAX_BYTES = METADATA_MAX_BYTES - 128
"""The rest is for our own, the delivery token among them."""
_OURS = "xmode-"


def check_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Raises ValueError for what S3 would refuse or change, and for names that are ours."""
    for name, value in metadata.items():
        if name.lower().startswith(_OURS):
            raise ValueError(f"{name!r}: names that begin with {_OURS} are our own; choose another")
        if re.fullmatch(METADATA_PATTERN, name) is None:
            raise ValueError(f"{name!r} cannot be a name: use 1 to 128 small letters, digits and hyphens")
        if not value.isascii() or not value.isprintable() or value != value.strip() or not value:
            raise ValueError(
                f"{name}: {value!r} cannot be sent: write printable ASCII, without spaces at its ends"
            )
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > DESTINATION_MAX_BYTES:
        raise ValueError(
            f"names and values have {size:,} bytes together; there is room for {DESTINATION_MAX_BYTES:,}"
        )
    return metadata
