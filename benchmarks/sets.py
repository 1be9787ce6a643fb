"""What is measured: files to send, over which network, and who sends them how often."""

from dataclasses import dataclass

import clients
from clients import Client

KIB, MIB, GIB = 1024, 1024**2, 1024**3


@dataclass(frozen=True)
class Set:
    """``rounds`` is how often each client runs, unless told; ``quick`` sets are those that run by default.
    ``round_trip_seconds`` is the distance to S3. With ``again`` all is delivered once (measured as
    ``ours_first``), and then the clients find nothing to do."""

    name: str
    what: str
    files: int
    size: int
    clients: tuple[Client, ...]
    rounds: int = 3
    quick: bool = False
    tls: bool = False
    refused_percent: float = 0.0
    round_trip_seconds: float = 0.0
    customers: int = 1
    again: bool = False

    @property
    def objects(self) -> int:
        return self.files * self.customers

    @property
    def bytes(self) -> int:
        return self.objects * self.size


FAST: tuple[Client, ...] = (clients.ours, clients.engine_alone, clients.s5cmd, clients.rclone)
EVERY: tuple[Client, ...] = (*FAST, clients.aws_cli, clients.plain_boto3)
AGAIN: tuple[Client, ...] = (clients.ours, clients.s5cmd_sync, clients.rclone_again)

SETS = (
    Set("small", "2,000 x 64 KiB", 2_000, 64 * KIB, EVERY, rounds=5, quick=True),
    Set("tiny", "20,000 x 16 KiB", 20_000, 16 * KIB, FAST, rounds=5, quick=True),
    Set(
        "tiny-boto3",
        "20,000 x 16 KiB, plain boto3",
        20_000,
        16 * KIB,
        (clients.ours, clients.plain_boto3),
        rounds=2,
    ),
    Set("large", "8 x 256 MiB", 8, 256 * MIB, FAST, rounds=5, quick=True),
    Set("medium", "1,000 x 8 MiB", 1_000, 8 * MIB, FAST, rounds=2),
    Set("huge", "1 x 10 GiB", 1, 10 * GIB, FAST, rounds=2),
    Set("small-tls", "2,000 x 64 KiB over TLS", 2_000, 64 * KIB, FAST, rounds=5, quick=True, tls=True),
    Set("large-tls", "8 x 256 MiB over TLS", 8, 256 * MIB, FAST, tls=True),
    Set(
        "far",
        "2,000 x 64 KiB, 50 ms away",
        2_000,
        64 * KIB,
        FAST,
        rounds=2,
        round_trip_seconds=0.05,
    ),
    Set("refused", "20,000 x 16 KiB, 1 % refused with 503", 20_000, 16 * KIB, FAST[:3], refused_percent=1),
    Set(
        "customers",
        "1,000 customers x 3 x 16 KiB",
        3,
        16 * KIB,
        (clients.ours,),
        rounds=1,
        customers=1_000,
    ),
    Set("flat", "10,000 x 16 bytes", 10_000, 16, (clients.ours,), rounds=2),
    Set("again", "nothing to do over 100,000 delivered files", 100_000, 16, AGAIN, again=True),
    Set(
        "again-million",
        "nothing to do over 1,000,000 delivered files",
        1_000_000,
        16,
        AGAIN,
        rounds=2,
        again=True,
    ),
)
