"""All errors.

Each error has a message (what happened), ``responsible`` (the vendor unless its class says otherwise),
``retryable``, and a ``hint`` (what to do next).
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import ClassVar


class Responsible(StrEnum):
    """Who has to fix a problem."""

    VENDOR = "vendor"
    CUSTOMER = "customer"
    AWS = "aws"


class ExitCode:
    """The exit codes of the commands; public and stable (docs/cli.md)."""

    DONE = 0
    DEFECT = 1
    USAGE = 2
    WILL_RETRY = 3
    BLOCKED = 4
    ALREADY_RUNNING = 5
    INTERRUPTED = 130


class XmodeError(Exception):
    """An error that a person can act on.

    ``code`` is a stable identifier for programs. ``hint`` is one sentence on what to do next. ``aws_code``,
    ``http_status`` and ``request_id`` come from AWS's response, if there is one; AWS Support asks for the
    request ID.
    """

    code: ClassVar[str] = "error"
    responsible: ClassVar[Responsible] = Responsible.VENDOR
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = ExitCode.WILL_RETRY
    usual_hint: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        aws_code: str | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.usual_hint
        self.aws_code = aws_code
        self.http_status = http_status
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message

    def log_context(self) -> dict[str, str | int | bool]:
        """The error as fields for one log event or one JSON document."""
        fields: dict[str, str | int | bool | None] = {
            "cause": self.code,
            "responsible": str(self.responsible),
            "retryable": self.retryable,
            "message": self.message,
            "hint": self.hint or None,
            "aws_code": self.aws_code,
            "http_status": self.http_status,
            "request_id": self.request_id,
        }
        return {name: value for name, value in fields.items() if value is not None}


class ForCustomer(XmodeError):
    """An error that only the customer can fix. Its deliveries are blocked until then."""

    responsible = Responsible.CUSTOMER
    exit_code = ExitCode.BLOCKED


class Passing(XmodeError):
    """A transient error of AWS or the network."""

    responsible = Responsible.AWS
    retryable = True


class Defect(XmodeError):
    """A bug in xmode-transfer. The delivery stops; it is recorded and can be resumed."""

    code = "defect"
    exit_code = ExitCode.DEFECT


class ConfigError(XmodeError):
    """The configuration or the command line is invalid; ``problems`` has a line for each mistake."""

    code = "config_invalid"
    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class NeedsConfirmation(XmodeError):
    """Nothing was done, because a person has to confirm an operation of this size."""

    code = "needs_confirmation"
    exit_code = ExitCode.USAGE


class Interrupted(XmodeError):
    """The process was asked to stop. Its progress is recorded, and the next run resumes from there."""

    code = "interrupted"
    exit_code = ExitCode.INTERRUPTED


class AlreadyRunning(XmodeError):
    """Another live process holds the lease on this work."""

    code = "already_running"
    exit_code = ExitCode.ALREADY_RUNNING


class LeaseLost(XmodeError):
    """Another process took over our lease, so the ledger refuses our writes."""

    code = "lease_lost"


class SourceError(XmodeError):
    """An error of the files to deliver."""

    code = "source_error"


class SourceMissing(SourceError):
    code = "source_missing"


class SourceChanged(SourceError):
    """A file changed, shrank or vanished while it was read. It is not delivered in that state."""

    code = "source_changed"
    usual_hint = "A later run delivers it once it no longer changes"


class SourceUnreadable(SourceError):
    code = "source_unreadable"


class SourcePartlyUnreadable(SourceError):
    """Some directories of the partition's path cannot be read, so their periods are unknown. The rest of the
    feed is delivered."""

    code = "source_partly_unreadable"


class LedgerError(XmodeError):
    """An error of the ledger. No delivery is reported that the ledger does not hold."""

    code = "ledger_error"


class LedgerLocked(LedgerError):
    code = "ledger_locked"
    retryable = True


class LedgerUnreachable(LedgerError):
    """The database server did not answer before the timeout."""

    code = "ledger_unreachable"
    retryable = True


class LedgerRefused(LedgerError):
    """The database server refuses access: a password, a certificate or a privilege is wrong."""

    code = "ledger_refused"


class LedgerMissing(LedgerError):
    """The configured ledger, database, schema or host does not exist."""

    code = "ledger_missing"


class LedgerReadOnly(LedgerError):
    code = "ledger_read_only"


class LedgerFull(LedgerError):
    code = "ledger_full"


class LedgerTooNew(LedgerError):
    code = "ledger_too_new"


class LedgerCorrupt(LedgerError):
    code = "ledger_corrupt"


class ReceiptRefused(XmodeError):
    """A signed receipt that cannot be trusted: truncated, altered, or not signed with the given key."""

    code = "receipt_refused"


class VendorIdentityError(XmodeError):
    """Our own AWS credentials are missing, wrong or not the configured vendor principal."""

    code = "vendor_identity"


class OtherPrincipal(VendorIdentityError):
    """Our credentials are valid, but not the configured vendor principal's."""


class VendorClockSkew(VendorIdentityError):
    """STS refuses our signature; its response shows that this machine's clock is wrong."""

    code = "clock_skew"


class NotificationFailed(XmodeError):
    """A channel did not accept a message. Deliveries continue, and the message is retried."""

    code = "notification_failed"
    retryable = True


class RoleRefused(ForCustomer):
    """STS refuses AssumeRole for the customer's role.

    AWS returns the same code, AccessDenied, if the role does not exist, does not trust us, or requires
    another external ID. Therefore the message lists the possible causes.
    """

    code = "role_refused"


class UnsafeRole(ForCustomer):
    """The last access check could assume the role without its external ID, and the configuration forbids
    deliveries to such a customer (confused deputy: IAM User Guide, id_roles_create_for-user_externalid)."""

    code = "unsafe_role"


class SessionExpired(Passing):
    """The role session is no longer accepted. It is refreshed once and the request is retried."""

    code = "session_expired"


class StoreError(XmodeError):
    """An error response of the destination."""

    code = "store_error"


class AccessDenied(ForCustomer, StoreError):
    code = "access_denied"


class DeniedByUs(AccessDenied):
    """AWS names one of our policies: our session policy, or the policy of our VPC endpoint."""

    code = "access_denied_by_us"
    responsible = Responsible.VENDOR
    exit_code = ExitCode.WILL_RETRY


class BucketMissing(ForCustomer, StoreError):
    code = "bucket_missing"


class WrongBucketOwner(ForCustomer, StoreError):
    code = "bucket_other_owner"


class KmsDenied(ForCustomer, StoreError):
    code = "kms_denied"


class ListingEmpty(ForCustomer, StoreError):
    """A listing succeeds but is empty, although the ledger has objects. No conclusion is drawn from it."""

    code = "listing_empty"


class PartsRefused(ForCustomer, StoreError):
    """The destination refuses multipart uploads (reference: an ACL condition that parts cannot meet)."""

    code = "multipart_denied"


class ObjectExists(ForCustomer, StoreError):
    """A create-only PUT failed because the key exists (HTTP 412)."""

    code = "object_exists"


class ObjectNotFound(StoreError):
    code = "object_not_found"


class UploadNotFound(StoreError):
    """NoSuchUpload: the multipart upload was completed, aborted or expired; a HEAD shows which."""

    code = "upload_not_found"


class ChecksumMismatch(Passing, StoreError):
    code = "checksum_mismatch"


class RequestRefused(StoreError):
    code = "request_refused"
    exit_code = ExitCode.DEFECT


class Throttled(Passing, StoreError):
    code = "throttled"


class Unavailable(Passing, StoreError):
    code = "unavailable"


class CertificateRefused(Unavailable):
    """The server's certificate is not accepted. Retrying within a run does not help."""


class ClockSkew(StoreError):
    code = "clock_skew"


def worst(codes: Iterable[int]) -> int:
    """Returns the exit code for several results: the first that occurs of interrupted, defect, usage,
    blocked, will retry, already running, done."""
    seen = set(codes)
    order = (
        ExitCode.INTERRUPTED,
        ExitCode.DEFECT,
        ExitCode.USAGE,
        ExitCode.BLOCKED,
        ExitCode.WILL_RETRY,
        ExitCode.ALREADY_RUNNING,
    )
    return next((code for code in order if code in seen), ExitCode.DONE)
