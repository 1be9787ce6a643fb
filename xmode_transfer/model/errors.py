"""The one tree of errors.

Every error says what happened (its message), who is responsible (``responsible``: the vendor where a class
says nothing else), whether it will be tried again (``retryable``), and what to do next (``hint``).
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import ClassVar


class Responsible(StrEnum):
    """Who must act."""

    VENDOR = "vendor"
    CUSTOMER = "customer"
    AWS = "aws"


class ExitCode:
    """What a process answers; public and stable (docs/cli.md)."""

    DONE = 0
    DEFECT = 1
    USAGE = 2
    WILL_RETRY = 3
    BLOCKED = 4
    ALREADY_RUNNING = 5
    INTERRUPTED = 130


class XmodeError(Exception):
    """An error that a person can act on.

    ``code`` is a stable word for programs, ``hint`` one sentence on what to do next.
    ``aws_code``, ``http_status`` and ``request_id`` are AWS's own, when there are any:
    the request ID is what AWS support asks for.
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
    """What only the customer can mend: its deliveries are blocked until then."""

    responsible = Responsible.CUSTOMER
    exit_code = ExitCode.BLOCKED


class Passing(XmodeError):
    """What AWS or the network does, and what may be over the next time."""

    responsible = Responsible.AWS
    retryable = True


class Defect(XmodeError):
    """Something that should not be possible; the delivery stops where it is, recorded and resumable."""

    code = "defect"
    exit_code = ExitCode.DEFECT


class ConfigError(XmodeError):
    """The configuration or the command line is wrong; ``problems`` has a line for each mistake."""

    code = "config_invalid"
    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class NeedsConfirmation(XmodeError):
    """Nothing was done, because it is more than may be done without a person's word."""

    code = "needs_confirmation"
    exit_code = ExitCode.USAGE


class Interrupted(XmodeError):
    """We were asked to stop; what was done is recorded and the next run goes on from there."""

    code = "interrupted"
    exit_code = ExitCode.INTERRUPTED


class AlreadyRunning(XmodeError):
    """Another live process holds the lease on this work."""

    code = "already_running"
    exit_code = ExitCode.ALREADY_RUNNING


class LeaseLost(XmodeError):
    """Our lease was taken over while we slept: the ledger refuses our writes."""

    code = "lease_lost"


class SourceError(XmodeError):
    """Something about the files to deliver."""

    code = "source_error"


class SourceMissing(SourceError):
    code = "source_missing"


class SourceChanged(SourceError):
    """A file changed, shrank or vanished while it was read; it is not delivered in that state."""

    code = "source_changed"
    usual_hint = "It is delivered by a later run, once it no longer changes"


class SourceUnreadable(SourceError):
    code = "source_unreadable"


class SourcePartlyUnreadable(SourceError):
    """Directories of the partition's path cannot be followed, so nobody knows their periods; what else the
    feed has was seen, and is delivered."""

    code = "source_partly_unreadable"


class LedgerError(XmodeError):
    """Something about our durable record; no delivery is reported that it does not hold."""

    code = "ledger_error"


class LedgerLocked(LedgerError):
    code = "ledger_locked"
    retryable = True


class LedgerUnreachable(LedgerError):
    """The database server did not answer for as long as we waited."""

    code = "ledger_unreachable"
    retryable = True


class LedgerRefused(LedgerError):
    """The database server is there, and does not let us in: a password, a certificate, a right."""

    code = "ledger_refused"


class LedgerMissing(LedgerError):
    """There is no ledger, database, schema or host of the name that is configured."""

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
    """A signed receipt that must not be relied on: cut off, altered, or not signed with the key that was
    given."""

    code = "receipt_refused"


class VendorIdentityError(XmodeError):
    """Our own AWS credentials are missing, wrong or not the configured vendor principal."""

    code = "vendor_identity"


class OtherPrincipal(VendorIdentityError):
    """Our credentials are valid, but not the configured vendor principal's."""


class VendorClockSkew(VendorIdentityError):
    """STS refuses our signature, and by its answer this machine's clock is wrong."""

    code = "clock_skew"


class NotificationFailed(XmodeError):
    """A channel did not take a message; deliveries go on, and the message is tried again."""

    code = "notification_failed"
    retryable = True


class RoleRefused(ForCustomer):
    """STS refuses AssumeRole for the customer's role.

    AWS answers the one code AccessDenied whether the role is absent, does not trust us, or wants
    another external ID, so the message lists the causes instead of guessing one.
    """

    code = "role_refused"


class UnsafeRole(ForCustomer):
    """The last check of access could assume the role without its external ID, and the configuration says that
    nothing is delivered to such a customer (confused deputy: IAM User Guide,
    id_roles_create_for-user_externalid)."""

    code = "unsafe_role"


class SessionExpired(Passing):
    """The role session is no longer accepted; it is refreshed once and the request tried again."""

    code = "session_expired"


class StoreError(XmodeError):
    """An answer of the destination that is not success."""

    code = "store_error"


class AccessDenied(ForCustomer, StoreError):
    code = "access_denied"


class DeniedByUs(AccessDenied):
    """AWS names a policy of ours: the session policy of our own session, or that of our VPC endpoint."""

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
    """A listing without an error that shows nothing where the ledger has objects: nothing is concluded from
    it."""

    code = "listing_empty"


class PartsRefused(ForCustomer, StoreError):
    """The destination refuses multipart uploads (reference: an ACL condition that parts cannot meet)."""

    code = "multipart_denied"


class ObjectExists(ForCustomer, StoreError):
    """A create-only PUT found the key taken (HTTP 412)."""

    code = "object_exists"


class ObjectNotFound(StoreError):
    code = "object_not_found"


class UploadNotFound(StoreError):
    """NoSuchUpload: the multipart upload was completed, aborted or expired; a HEAD settles which."""

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
    """The server's certificate is not accepted. That does not pass within a run."""


class ClockSkew(StoreError):
    code = "clock_skew"


def worst(codes: Iterable[int]) -> int:
    """The exit code that stands for several: the first of interrupted, defect, usage, blocked, will retry,
    already running, done."""
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
