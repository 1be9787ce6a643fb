"""How the daemon works: its pool, its clock, and the schedules of its housekeeping."""

from pydantic import Field

from xmode_transfer.domain.config.base import Model
from xmode_transfer.domain.config.schedule import Schedule


class Daemon(Model):
    """How `xmode-transfer daemon` works. The defaults fit thousands of customers on one machine."""

    workers: int = Field(default=16, ge=1, le=256)
    """Deliveries that run at once; one customer takes one of them."""
    tick_seconds: int = Field(default=60, ge=1, le=600)
    """Seconds between two looks for something to do. Customers without a schedule are looked at each time."""
    spread_seconds: int = Field(default=60, ge=0, le=86_400)
    """Seconds over which customers with the same schedule are spread, each always at the same place."""
    turn_seconds: int = Field(default=600, ge=1, le=86_400)
    """Seconds after which a delivery makes room for others that wait, and goes on in its next turn."""
    drain_seconds: int = Field(default=15, ge=0, le=86_400)
    """Seconds that running deliveries have to end after SIGTERM, before they are stopped where they are."""
    first_retry_seconds: int = Field(default=30, ge=1, le=86_400)
    """Seconds after which a delivery that failed or was refused is tried again; each failure doubles them."""
    longest_retry_seconds: int = Field(default=900, ge=1, le=86_400)
    """Seconds that they grow to."""
    cleanup: Schedule | None = Schedule(cron="15 2 * * *")
    """When retention is carried out, spread over an hour; null: never by itself."""
    access_checks: Schedule | None = Schedule(cron="45 4 * * *")
    """When each customer's access is checked, spread over an hour; null: only after a refusal."""
    health: Schedule = Schedule(cron="* * * * *")
    """When health is computed, and alerts are opened, repeated and resolved."""
