"""A customer's tools: they read a feed as a table, under the role that the customer made by the guide.

What they read is compared with the objects that our newest manifests list, which are read here as the
customer itself, without the table.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import deltalake
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from duckdb_extensions import import_extension

from tests import bucket
from xmode_transfer.sandbox.accounts import client
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox

COLUMNS = ("dt", "batch", "id", "price", "extra")
"""What is compared; a column that a file or the table does not have is null."""
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Readers:
    """deltalake, Polars and DuckDB, with one session of the customer's role."""

    customer: CustomerSetup
    feed: str
    key: Mapping[str, str]

    @classmethod
    def of(cls, sandbox: Sandbox, customer: CustomerSetup, feed: str = "us-daily") -> "Readers":
        vendor = {
            "access_key_id": sandbox.vendor.access_key_id,
            "secret_access_key": sandbox.vendor.secret_access_key,
        }
        sts = client("sts", endpoint=sandbox.endpoint, region=customer.region, **vendor)
        how = {"RoleSessionName": "reader", "ExternalId": customer.external_id}
        return cls(customer, feed, sts.assume_role(RoleArn=customer.role_arn, **how)["Credentials"])

    @property
    def url(self) -> str:
        return f"s3://{self.customer.bucket}/{self.customer.prefix}{self.feed}"

    @property
    def options(self) -> dict[str, str]:
        """For the readers that are written in Rust."""
        return {
            "AWS_ACCESS_KEY_ID": self.key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": self.key["SecretAccessKey"],
            "AWS_SESSION_TOKEN": self.key["SessionToken"],
            "AWS_REGION": self.customer.region,
            "AWS_ENDPOINT_URL": self.customer.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }

    def table(self, version: int | None = None) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(self.url, version=version, storage_options=self.options)

    def read(self) -> dict[str, Rows]:
        """What each of them reads."""
        return {
            "deltalake": rows_of(self.table().to_pyarrow_table()),
            "polars": rows_of(pl.read_delta(self.url, storage_options=self.options).to_arrow()),
            "duckdb": rows_of(self.sql(f"SELECT * FROM delta_scan('{self.url}')").to_arrow_table()),
        }

    def sql(self, text: str) -> duckdb.DuckDBPyRelation:
        return self._connection.sql(text)

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        for name in ("delta", "httpfs"):
            import_extension(name)
        connection = duckdb.connect()
        connection.execute("LOAD delta; LOAD httpfs")
        secret = {
            "KEY_ID": self.key["AccessKeyId"],
            "SECRET": self.key["SecretAccessKey"],
            "SESSION_TOKEN": self.key["SessionToken"],
            "REGION": self.customer.region,
            "ENDPOINT": self.customer.endpoint.removeprefix("http://"),
            "URL_STYLE": "path",
        }
        words = ", ".join(f"{name} '{value}'" for name, value in secret.items())
        connection.execute(f"CREATE SECRET (TYPE s3, USE_SSL false, {words})")
        return connection

    # --- Beside the table ---------------------------------------------------------------------------------

    @property
    def root(self) -> str:
        return f"{self.customer.prefix}{self.feed}/"

    def manifests(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Our manifests that are in the bucket, by period and revision."""
        keys = bucket.list_keys(self.customer, f"{self.root}_manifests/")
        documents = [json.loads(bucket.read_object(self.customer, key)) for key in keys]
        return {(item["period"], item["revision"]): item for item in documents}

    def newest(self) -> Rows:
        """The rows of the objects that the newest manifest of each period lists."""
        newest = dict[str, dict[str, Any]]()
        for (period, _), manifest in sorted(self.manifests().items()):
            newest[period] = manifest
        return sorted((row for manifest in newest.values() for row in self.rows(manifest)), key=repr)

    def rows(self, manifest: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The rows of the Parquet objects that a manifest lists."""
        for item in manifest["objects"]:
            if item["key"].endswith(".parquet"):
                data = pq.ParquetFile(io.BytesIO(bucket.read_object(self.customer, item["key"]))).read()
                (day,) = [part[3:] for part in item["key"].split("/") if part.startswith("dt=")]
                yield from rows_of(data.append_column("dt", pa.array([day] * data.num_rows, pa.string())))

    def commits(self) -> dict[int, tuple[str, int] | None]:
        """The delivery (period and revision) of each version of the log; None for a removal."""
        found = dict[int, tuple[str, int] | None]()
        for key in bucket.list_keys(self.customer, f"{self.root}_delta_log/"):
            if key.endswith(".json"):
                lines = bucket.read_object(self.customer, key).splitlines()
                (named, *_) = [*(one["txn"] for one in map(json.loads, lines) if "txn" in one), None]
                of = named and (named["appId"].removeprefix(f"xmode:{self.feed}/"), named["version"])
                found[int(key.rpartition("/")[2].removesuffix(".json"))] = of
        return found


def rows_of(table: pa.Table) -> Rows:
    """The rows, in an order that does not depend on the reader."""
    columns = {name: table[name].to_pylist() for name in table.column_names}
    nothing = [None] * table.num_rows
    dates = [str(value) for value in columns.get("dt", nothing)]
    return sorted(zip(dates, *(columns.get(name, nothing) for name in COLUMNS[1:]), strict=True), key=repr)


def parquet(batch: int, ids: range, **more: list[Any]) -> bytes:
    """A file of a delivery: ``batch`` tells its rows from those of other deliveries."""
    columns = {
        "batch": pa.array([batch] * len(ids), pa.int64()),
        "id": pa.array(ids, pa.int64()),
        "price": pa.array([number / 4 for number in ids], pa.float64()),
        **more,
    }
    pq.write_table(pa.table(columns), buffer := io.BytesIO())
    return buffer.getvalue()
