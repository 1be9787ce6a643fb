"""All errors. Each has a message (what happened), a hint (what to do next), a code and an exit code."""

from collections.abc import Iterable
from enum import StrEnum
from typing import ClassVar


class Responsible(StrEnum):
    """The party that has to fix a problem."""

    VENDOR = "vendor"
    CUSTOMER = "customer"
    AWS = "aws"


class ExitCode:
    """Public and stable (docs/cli.md)."""

    DONE = 0
    DEFECT = 1
    USAGE = 2
    WILL_RETRY = 3
    BLOCKED = 4
    ALREADY_RUNNING = 5
    INTERRUPTED = 130


class XmodeError(Exception):
    """An error that a person can act on. ``code`` is a stable identifier for programs. ``aws_code``,
    ``http_status`` and ``request_id`` come from AWS's response; AWS Support asks for the request ID."""

    code: ClassVar[str] = "error"
    responsible: ClassVar[Responsible] = Responsible.VENDOR
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = ExitCode.WILL_RETRY
    usual_hint: ClassVar[str] = ""

    def __init_subclass__(cls, *, code: str = "") -> None:
        super().__init_subclass__()
        if code:
            cls.code = code

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

    def log_context(self) -> dict[str, str | int | bool]:
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


class Defect(XmodeError, code="defect"):
    """A bug in xmode-transfer. The delivery stops; it is recorded and can be resumed."""

    exit_code = ExitCode.DEFECT


class ConfigError(XmodeError, code="config_invalid"):
    """The configuration or the command line is invalid; ``problems`` has a line for each mistake."""

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class NeedsConfirmation(XmodeError, code="needs_confirmation"):
    """Nothing was done, because a person has to confirm an operation of this size."""

    exit_code = ExitCode.USAGE


class Interrupted(XmodeError, code="interrupted"):
    """The process was asked to stop. Its progress is recorded, and the next run resumes from there."""

    exit_code = ExitCode.INTERRUPTED


class AlreadyRunning(XmodeError, code="already_running"):
    """Another live process holds the lease on this work."""

    exit_code = ExitCode.ALREADY_RUNNING


class LeaseLost(XmodeError, code="lease_lost"):
    """Another process took over our lease, so the ledger refuses our writes."""


class SourceError(XmodeError, code="source_error"): ...


class SourceMissing(SourceError, code="source_missing"): ...


class SourceChanged(SourceError, code="source_changed"):
    """A file changed, shrank or vanished while it was read. It is not delivered in that state."""

    usual_hint = "A later run delivers it once it no longer changes"


class SourceUnreadable(SourceError, code="source_unreadable"): ...


class KeyCollision(SourceError, code="key_collision"):
    """Another file of the period has the key. Neither replaces the other."""


class SourcePartlyUnreadable(SourceError, code="source_partly_unreadable"):
    """Some directories cannot be read, so their periods are unknown. The rest of the feed is delivered."""


class Quarantined(XmodeError, code="quarantined"):
    """A check before release failed: nothing of the period is sent until its source is corrected, or a person
    releases it."""


class Rejected(XmodeError, code="rejected"):
    """A person has rejected a quarantined period: it is never delivered as it is."""

    exit_code = ExitCode.DONE


class LedgerError(XmodeError, code="ledger_error"):
    """An error of the ledger. No delivery is reported that the ledger does not hold."""


class LedgerLocked(LedgerError, code="ledger_locked"):
    retryable = True


class LedgerUnreachable(LedgerError, code="ledger_unreachable"):
    """The database server did not answer before the timeout."""

    retryable = True


class LedgerRefused(LedgerError, code="ledger_refused"):
    """The database server refuses access: a password, a certificate or a privilege is wrong."""


class LedgerMissing(LedgerError, code="ledger_missing"):
    """The configured ledger, database, schema or host does not exist."""


class LedgerReadOnly(LedgerError, code="ledger_read_only"): ...


class LedgerFull(LedgerError, code="ledger_full"): ...


class LedgerTooNew(LedgerError, code="ledger_too_new"): ...


class LedgerCorrupt(LedgerError, code="ledger_corrupt"): ...


class ReceiptRefused(XmodeError, code="receipt_refused"):
    """A signed receipt that cannot be trusted: truncated, altered, or not signed with the given key."""


class VendorIdentityError(XmodeError, code="vendor_identity"):
    """Our own AWS credentials are missing, wrong or not the configured vendor principal."""


class OtherPrincipal(VendorIdentityError):
    """Our credentials are valid, but not the configured vendor principal's."""


class VendorClockSkew(VendorIdentityError, code="clock_skew"):
    """STS refuses our signature; its response shows that this machine's clock is wrong."""


class NotificationFailed(XmodeError, code="notification_failed"):
    """A channel did not accept a message. Deliveries continue, and the message is retried."""

    retryable = True


class RoleRefused(ForCustomer, code="role_refused"):
    """STS refuses AssumeRole for the customer's role. AWS returns AccessDenied if the role does not exist,
    does not trust us, or requires another external ID; the message lists these possible causes."""


class UnsafeRole(ForCustomer, code="unsafe_role"):
    """The last access check could assume the role without its external ID, and the configuration forbids
    deliveries to such a customer (confused deputy: IAM User Guide, id_roles_create_for-user_externalid)."""


class SessionExpired(Passing, code="session_expired"):
    """The role session is no longer accepted. It is refreshed once and the request is retried."""


class OwnershipUnproven(ForCustomer, code="ownership_unproven"):
    """Whoever signed up has not proven that the bucket is its own."""


class StoreError(XmodeError, code="store_error"): ...


class AccessDenied(ForCustomer, StoreError, code="access_denied"): ...


class DeniedByUs(AccessDenied, code="access_denied_by_us"):
    """AWS names one of our policies: our session policy, or the policy of our VPC endpoint."""

    responsible = Responsible.VENDOR
    exit_code = ExitCode.WILL_RETRY


class BucketMissing(ForCustomer, StoreError, code="bucket_missing"): ...


class WrongBucketOwner(ForCustomer, StoreError, code="bucket_other_owner"): ...


class KmsDenied(ForCustomer, StoreError, code="kms_denied"): ...


class ListingEmpty(ForCustomer, StoreError, code="listing_empty"):
    """A listing succeeds but is empty, although the ledger has objects. No conclusion is drawn from it."""


class PartsRefused(ForCustomer, StoreError, code="multipart_denied"):
    """The destination refuses multipart uploads (reference: an ACL condition that parts cannot meet)."""


class ObjectExists(ForCustomer, StoreError, code="object_exists"):
    """A create-only PUT failed because the key exists (HTTP 412)."""


class TableConflict(ObjectExists, code="table_conflict"):
    """The log of a table has a commit that is not ours. Nothing was overwritten."""


class TableRefused(XmodeError, code="table_refused"):
    """The configuration does not agree with the table that is there."""


class SchemaChanged(XmodeError, code="schema_changed"):
    """A file does not fit its feed's table. Nothing of the delivery is sent."""


class ObjectNotFound(StoreError, code="object_not_found"): ...


class UploadNotFound(StoreError, code="upload_not_found"):
    """NoSuchUpload: the multipart upload was completed, aborted or expired; a HEAD shows which."""


class ChecksumMismatch(Passing, StoreError, code="checksum_mismatch"): ...


class RequestRefused(StoreError, code="request_refused"):
    exit_code = ExitCode.DEFECT


class Throttled(Passing, StoreError, code="throttled"): ...


class Unavailable(Passing, StoreError, code="unavailable"): ...


class CertificateRefused(Unavailable):
    """The server's certificate is not accepted. Retrying within a run does not help."""


class ClockSkew(StoreError, code="clock_skew"): ...


def worst(codes: Iterable[int]) -> int:
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
