"""The fast engine: S3 through awscrt's ``S3Client``, one for all customers of the process.

What carries a body goes this way: PutObject and UploadPart. All else is rarer and goes through botocore, as
in the portable engine, which this one extends. docs/engine.md says how, and what was measured.
"""

try:
    from xmode_transfer.aws.s3_fast.store import FastStore, FastStores
except (ImportError, OSError) as error:  # no wheel for this machine, or one too old
    _why_not = f"awscrt cannot be loaded: {error}"
else:
    _why_not = ""


def available() -> tuple[bool, str]:
    """Whether this engine runs here, and why (not): a few words for the log and for ``status``."""
    if _why_not:
        return False, _why_not
    import awscrt

    return True, f"awscrt {awscrt.__version__}"
