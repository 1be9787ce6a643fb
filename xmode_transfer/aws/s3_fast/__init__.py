"""The fast engine: PutObject and UploadPart through awscrt's ``S3Client``, and everything else as in the
portable engine, which it extends (docs/engine.md)."""

try:
    from xmode_transfer.aws.s3_fast.store import FastStore, FastStores
except (ImportError, OSError) as error:  # no wheel for this machine, or one too old
    _why_not = f"awscrt cannot be loaded: {error}"
else:
    _why_not = ""


def available() -> tuple[bool, str]:
    """Return whether this engine runs here, and the reason, for the log and for ``status``."""
    if _why_not:
        return False, _why_not
    import awscrt

    return True, f"awscrt {awscrt.__version__}"
