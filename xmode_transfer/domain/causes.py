"""Every cause that an alert may have: in a few words, and whether it can wait until morning.

docs/operations.md has a row for each (a test compares).
"""

from types import MappingProxyType

SUMMARIES = MappingProxyType(
    {
        # The customer's side
        "role_refused": "AssumeRole is refused",
        "unsafe_role": "the role does not demand its external ID",
        "access_denied": "S3 refuses a right",
        "kms_denied": "the KMS key refuses us",
        "bucket_missing": "the bucket is not there",
        "bucket_other_owner": "the bucket belongs to somebody else",
        "multipart_denied": "multipart uploads are refused",
        "object_exists": "a foreign object lies under our key",
        "listing_empty": "the listing of the bucket is empty though it should not be",
        "access_drift": "the access check found something wrong",
        "left_behind": "uploads are left behind",
        "delivered_changed": "what was delivered is gone or changed",
        "superseded_left": "objects that no manifest names cannot be removed",
        # Our side
        "vendor_identity": "AWS refuses our own credentials",
        "clock_skew": "this machine's clock is wrong",
        "access_denied_by_us": "a policy of ours denies a right",
        "config_invalid": "the configuration has mistakes",
        "late": "a delivery is late",
        "not_looked": "nobody looks at the source",
        "no_source": "the source has nothing to deliver",
        "source_missing": "the source is not there",
        "source_unreadable": "the source cannot be read",
        "source_partly_unreadable": "a part of the source cannot be read",
        "source_changed": "source files change while they are read",
        "source_error": "the source is in trouble",
        "incomplete": "some files do not arrive",
        "needs_confirmation": "a cleanup waits for a person",
        "daemon_silent": "the daemon is silent",
        "ledger_disk_low": "the ledger's disk is nearly full",
        "ledger_locked": "the ledger is locked",
        "ledger_unreachable": "the ledger's database server does not answer",
        "ledger_refused": "the ledger's database server does not let us in",
        "ledger_missing": "there is no ledger where one is configured",
        "ledger_read_only": "the ledger cannot be written",
        "ledger_full": "the ledger's disk is full",
        "ledger_corrupt": "the ledger is damaged",
        "ledger_too_new": "the ledger is of a later version",
        "ledger_error": "the ledger is in trouble",
        "request_refused": "S3 refuses a request that we should not have made",
        "object_not_found": "an object that we delivered is gone",
        "upload_not_found": "a multipart upload is gone",
        "lease_lost": "another process took the work over",
        "defect": "a mistake in this program",
        # AWS and the network
        "throttled": "AWS slows us down",
        "unavailable": "AWS is out of reach",
        "session_expired": "role sessions end too early",
        "checksum_mismatch": "bytes change on their way",
        "store_error": "S3 answers what we do not know",
    }
)

URGENT = frozenset(
    {
        "vendor_identity",
        "clock_skew",
        "daemon_silent",
        "defect",
        "ledger_disk_low",
        "ledger_locked",
        "ledger_unreachable",
        "ledger_refused",
        "ledger_missing",
        "ledger_read_only",
        "ledger_full",
        "ledger_corrupt",
        "ledger_too_new",
        "ledger_error",
    }
)
"""What stops or endangers everybody's deliveries: it is sent in quiet hours too."""
