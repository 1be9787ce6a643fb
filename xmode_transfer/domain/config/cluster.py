"""How the work is shared out where several workers do it (`worker`, `daemon --engine procrastinate`)."""

from pydantic import Field

from xmode_transfer.domain.config.base import ByteCount, Model

GIB = 1024 * 1024 * 1024


class Cluster(Model):
    """How several workers share the work."""

    places: int | None = Field(default=None, ge=1, le=256)
    """Turns that one `worker` takes at once; null: as many as `daemon.workers`, which a daemon that delivers
    itself always takes."""
    turn_bytes: ByteCount = Field(default=50 * GIB, ge=1)
    """Bytes after which a delivery makes room for others that wait, in bytes or like 50GiB; as
    `daemon.turn_seconds`, whichever comes first."""
