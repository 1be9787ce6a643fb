"""A vendor's own script: every file below a directory with boto3, 16 at a time."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

ACL = {"ACL": "bucket-owner-full-control"}


def main(directory: Path, bucket: str, endpoint: str) -> None:
    config = Config(max_pool_connections=32, s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=endpoint, config=config)
    transfer = TransferConfig(preferred_transfer_client="classic", max_concurrency=16)

    def send(path: Path) -> None:
        key = f"xmode/set/{path.relative_to(directory)}"
        if path.stat().st_size > 8 * 1024 * 1024:
            client.upload_file(str(path), bucket, key, ExtraArgs=ACL, Config=transfer)
        else:
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), **ACL)

    with ThreadPoolExecutor(16) as threads:
        for _ in threads.map(send, (path for path in directory.rglob("*") if path.is_file())):
            pass


main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
