"""Rules for a bucket's own cleaning, which only its owner can set."""

from typing import Any


def free_hidden_versions(prefix: str) -> dict[str, Any]:
    """The rule that frees what lies below delete markers: versions that have been hidden for a day, and
    then the markers themselves (S3 User Guide, "Lifecycle configuration elements")."""
    return {
        "ID": "free-what-xmode-has-removed",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }


def free_unfinished_uploads(prefix: str) -> dict[str, Any]:
    """The rule that frees the parts of multipart uploads which nobody has completed within a week."""
    return {
        "ID": "free-what-xmode-has-left-unfinished",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
