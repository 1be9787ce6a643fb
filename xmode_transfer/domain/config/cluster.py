"""How the work is shared out where several workers do it (`worker`, `daemon --engine procrastinate`)."""

from pydantic import Field

from xmode_transfer.domain.config.base import ByteCount, Model

GIB = 1024 * 1024 * 1024


class Cluster(Model):
    """How several workers share the work. Means nothing to a daemon that delivers itself."""

    places: int | None = Field(default=None, ge=1, le=256)
    """Turns that one worker takes at once; null: as many as `daemon.workers`."""
    turn_bytes: ByteCount = Field(default=50 * GIB, ge=1)
    """Bytes after which a delivery makes room for others that wait, in bytes or like 50GiB; as
    `daemon.turn_seconds`, whichever comes first."""
    share_above_bytes: ByteCount = Field(default=10 * GIB, ge=1)
    """Bytes above which several workers send one delivery together, in bytes or like 10GiB."""
    share_above_objects: int = Field(default=100_000, ge=1)
    """Objects above which they do."""
    chunk_bytes: ByteCount = Field(default=2 * GIB, ge=1)
    """About how large the pieces are that they take, in bytes or like 2GiB; a larger file is a piece by
    itself."""
    chunk_objects: int = Field(default=20_000, ge=1)
    """How many objects a piece has at most."""
    helpers: int = Field(default=8, ge=0, le=64)
    """Workers that may help with one delivery besides the one that has its turn; 0: none."""
