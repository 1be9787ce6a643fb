"""Receipts of `xmode-transfer verify`: write one, check one, and create the key that signs them."""

from collections.abc import Sequence
from pathlib import Path

from xmode_transfer.cli import terminal
from xmode_transfer.cli.opening import Shell
from xmode_transfer.config import Configuration
from xmode_transfer.model.errors import ConfigError, ExitCode
from xmode_transfer.transfer import signing
from xmode_transfer.upkeep import receipts
from xmode_transfer.upkeep.receipts import CheckedReceipt, ReceiptFile
from xmode_transfer.web import states


def new_file(configuration: Configuration, path: Path, form: str = receipts.FORMAT) -> ReceiptFile:
    """Return a receipt or a report to write. Raise ConfigError if no key is configured to sign it."""
    signer = signing.configured_signer(configuration.service.receipts)
    if signer is None:
        raise ConfigError(
            "receipts.key is not set in service.yaml: there is no key to sign with",
            hint="create a key with `xmode-transfer verify --new-key FILE`; it prints what to configure",
        )
    return ReceiptFile(path, signer, form)


def make_key(path: Path, *, as_json: bool) -> int:
    public, key = signing.new_key(path.absolute())
    if as_json:
        names = {"key": path.absolute(), "public_key": public}
        terminal.answer({**names, "key_id": key.key_id, "public_key_base64": key.base64})
        return ExitCode.DONE
    terminal.say(f"created {path} (keep it secret, keep a copy) and {public} (key {key.key_id})")
    terminal.say(f"in service.yaml:  receipts: {{key: file:{path.absolute()}}}", indent=2)
    terminal.say(f"and on all machines, permanently:  receipts: {{public_keys: [{key.base64}]}}", indent=2)
    terminal.say(f"give {public.name} to everyone who checks receipts: customers, auditors", indent=2)
    return ExitCode.DONE


def check(shell: Shell, path: Path, public_keys: Sequence[Path], *, as_json: bool) -> int:
    """Check a receipt offline, with the public keys that are named or configured."""
    keys = [signing.public_key_of(file) for file in public_keys] or _configured_keys(shell)
    found = receipts.check(path, keys)
    if as_json:
        terminal.answer({"receipt": path, "valid": True, **terminal.to_json(found)})
    elif found.head["format"] == receipts.RECALL_FORMAT:
        _show_report(path, found)
    else:
        _show_receipt(path, found)
    return ExitCode.DONE


def _configured_keys(shell: Shell) -> list[signing.PublicKey]:
    hint = "name it with --public-key FILE; the author of the receipt has it"
    try:
        configured = shell.configuration().service.receipts
    except ConfigError:
        problem = "checking a receipt requires our public key, and none was given"
        raise ConfigError(problem, hint=hint) from None
    signer = signing.configured_signer(configured)
    keys = [*([signer.public] if signer is not None else []), *signing.configured_public_keys(configured)]
    if not keys:
        raise ConfigError(
            "a receipt is checked with our public key: receipts.key and receipts.public_keys are not set",
            hint=hint,
        )
    return keys


def _show_receipt(path: Path, found: CheckedReceipt) -> None:
    head, tail = found.head, found.tail
    terminal.say(f"{path}, signed with the key {found.key_id}", label=terminal.state("valid", 7))
    forms = {"feed": "{}", "period": "{}", "since": "from {} on", "until": "until {}"}
    scope = [form.format(head[name]) for name, form in forms.items() if head.get(name)]
    what = f"{head.get('company')} ({head.get('customer')}), s3://{head.get('bucket')}/{head.get('prefix')}"
    terminal.fact("of", what + (f", {' '.join(scope)}" if scope else ""))
    how = "every object read back" if head.get("deep") else "by S3's own checksums"
    terminal.fact("checked", f"{head.get('checked_at')}, {how}, ACLs: {head.get('acl')}")
    proven = f"{tail.get('proven', 0):,} of {states.count(found.entries, 'key')} as delivered"
    terminal.fact("found", f"{tail.get('outcome')}: {proven}, {states.size(tail.get('bytes', 0))}")
    for finding in found.findings:
        terminal.say(str(finding["key"]), label=f"{finding['verdict']:<18}", indent=2)
        terminal.say(str(finding.get("message")), indent=20)


def _show_report(path: Path, found: CheckedReceipt) -> None:
    head, tail = found.head, found.tail
    terminal.say(f"{path}, signed with the key {found.key_id}", label=terminal.state("valid", 7))
    terminal.fact("recall", f"{head.get('recall')} of {head.get('feed')}, by {head.get('by')}")
    terminal.fact("reason", str(head.get("reason")))
    terminal.fact("reported", f"{head.get('reported_at')}: {tail.get('state')}")
    counts = ", ".join(f"{number:,} {outcome}" for outcome, number in (tail.get("keys") or {}).items())
    files, customers = tail.get("files", 0), tail.get("customers", 0)
    what = f"{states.count(files, 'file')}, {states.count(customers, 'customer')}"
    terminal.fact("keys", f"{counts or 'none'} ({what})")
    for finding in found.findings:
        terminal.say(
            f"{finding.get('customer')}: {finding['key']}", label=f"{finding['verdict']:<12}", indent=2
        )
        terminal.say(str(finding.get("message")), indent=14)
