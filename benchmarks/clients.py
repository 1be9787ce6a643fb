"""The clients that are measured: ours, whole and engine alone, and the peers; all create the same objects
from the same directory with the ACL that customers' policies demand, 16 requests at a time."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sink import Sink

HERE = Path(__file__).parent
BUCKET = "context-bucket"
PARALLEL = "16"


@dataclass(frozen=True)
class Work:
    """One directory to send to one sink; ``state`` is a directory that each run may write into, empty at its
    start."""

    data: Path
    state: Path
    sink: Sink
    peers: Path
    tls: bool = False
    customers: int = 1

    @property
    def endpoint(self) -> str:
        return self.sink.tls_url if self.tls else self.sink.url


Client = Callable[[Work], list[str]]


def write_config(directory: Path, data: Path, *, customers: int = 1) -> Path:
    """A configuration of ours: each customer in an account of its own, one feed, a drop folder without
    waiting."""
    for room in ("feeds", "customers"):
        (directory / room).mkdir(parents=True, exist_ok=True)
    (directory / "service.yaml").write_text("ledger: sqlite:///var/ledger.db\n")
    feed = {"source": str(data), "period": "none", "complete": {"settle_seconds": 0}}
    (directory / "feeds" / "set.yaml").write_text(json.dumps(feed))
    for number in range(customers):
        account = f"{111100000000 + number}"
        document = {
            "company": f"Company {number}",
            "external_id": f"company-{number}",
            "role_arn": f"arn:aws:iam::{account}:role/XMode",
            "destination": {
                "bucket": f"{BUCKET}-{number}",
                "prefix": "xmode/",
                "region": "us-east-1",
                "addressing": "path",
            },
            "feeds": ["set"],
        }
        (directory / "customers" / f"c{number:04}.yaml").write_text(json.dumps(document))
    return directory


def ours(work: Work) -> list[str]:
    """The whole command: configuration, ledger, plan, proofs, manifest."""
    config = work.state / "config"
    if not config.exists():
        write_config(config, work.data, customers=work.customers)
    who = ["--all"] if work.customers > 1 else ["--customer", "c0000"]
    command = Path(sys.executable).with_name("xmode-transfer")
    return [str(command), "--config", str(config), "--log-level", "error", "run", *who, "--json"]


def engine_alone(work: Work) -> list[str]:
    """The fast engine without plan, ledger and manifest."""
    return [sys.executable, str(HERE / "engine_alone.py"), str(work.data), f"{BUCKET}-0"]


def s5cmd(work: Work) -> list[str]:
    command = [str(work.peers / "s5cmd"), "--endpoint-url", work.endpoint, "--numworkers", PARALLEL]
    if work.tls:
        command.append("--no-verify-ssl")
    command += ["--log", "error", "cp", "--acl", "bucket-owner-full-control"]
    return [*command, f"{work.data}/", f"s3://{BUCKET}-0/xmode/set/"]


def rclone(work: Work) -> list[str]:
    return [
        str(work.peers / "rclone"),
        "copy",
        str(work.data),
        f":s3,provider=Other,env_auth,region=us-east-1,endpoint='{work.endpoint}',force_path_style:{BUCKET}-0/xmode/set",
        *("--transfers", PARALLEL, "--s3-acl", "bucket-owner-full-control", "--s3-no-check-bucket"),
        *(
            "--s3-no-head",
            "--multi-thread-cutoff",
            "100G",
            "--ignore-checksum",
            "--no-traverse",
            "--no-check-dest",
            "--ca-cert",
        ),
        *(str(work.sink.certificate), "--config", "/dev/null", "--quiet"),
    ]


def aws_cli(work: Work) -> list[str]:
    return [
        str(work.peers / "aws"),
        *("--endpoint-url", work.endpoint, "s3", "cp", "--recursive", "--quiet"),
        *("--acl", "bucket-owner-full-control", str(work.data), f"s3://{BUCKET}-0/xmode/set/"),
    ]


def plain_boto3(work: Work) -> list[str]:
    """What a vendor's own script does: put_object and upload_file in 16 threads."""
    return [sys.executable, str(HERE / "plain_boto3.py"), str(work.data), f"{BUCKET}-0", work.endpoint]


def s5cmd_sync(work: Work) -> list[str]:
    return [
        *(str(work.peers / "s5cmd"), "--endpoint-url", work.endpoint, "--log", "error"),
        *("sync", "--size-only", f"{work.data}/", f"s3://{BUCKET}-0/xmode/set/"),
    ]


def rclone_again(work: Work) -> list[str]:
    return [
        *(str(work.peers / "rclone"), "copy", str(work.data)),
        f":s3,provider=Other,env_auth,region=us-east-1,endpoint='{work.endpoint}',force_path_style,list_version=2:{BUCKET}-0/xmode/set",
        *("--size-only", "--fast-list", "--s3-no-check-bucket", "--config", "/dev/null", "--quiet"),
    ]


def fetch_peers(directory: Path) -> Path:
    """The peers from the package index, hash-checked, in an environment of their own; answers where their
    programs lie."""
    import subprocess
    import venv

    programs = directory / "bin"
    stamp = directory / "ready"
    wanted = (HERE / "requirements.txt").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return programs
    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, with_pip=True)
    subprocess.run(
        [
            str(programs / "pip"),
            "install",
            "--quiet",
            "--require-hashes",
            "-r",
            str(HERE / "requirements.txt"),
        ],
        check=True,
    )
    stamp.write_text(wanted)
    return programs
