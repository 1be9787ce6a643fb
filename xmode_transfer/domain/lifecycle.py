"""Rules for a bucket's own cleaning, which only its owner can set."""

from typing import Any


def free_hidden_versions(prefix: str, *, days: int = 1) -> dict[str, Any]:
    """The rule that frees what lies below delete markers: versions that have been hidden for ``days``, and
    then the markers themselves (S3 User Guide, "Lifecycle configuration elements")."""
    return {
        "ID": "free-what-xmode-has-removed",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "NoncurrentVersionExpiration": {"NoncurrentDays": days},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }


def free_unfinished_uploads(prefix: str, *, days: int = 7) -> dict[str, Any]:
    """The rule that frees the parts of multipart uploads which nobody has completed within ``days``."""
    return {
        "ID": "free-what-xmode-has-left-unfinished",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
    }
