"""The models: defaults, types, and values that do not fit together."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from xmode_transfer.config import (
    Customer,
    CustomerState,
    Destination,
    Engine,
    Feed,
    Limits,
    Marker,
    Retention,
    Schedule,
    SecretRef,
    Service,
    Settled,
    StatusPage,
    Vendor,
)
from xmode_transfer.config.base import did_you_mean, parse_size
from xmode_transfer.config.secrets import SecretKind
from xmode_transfer.model.selection import Selection

CUSTOMER: dict[str, Any] = {
    "name": "acme",
    "company": "Acme Corp",
    "external_id": "AcmeCorp",
    "role_arn": "arn:aws:iam::111122223333:role/XMode",
    "destination": {"bucket": "acme-data", "prefix": "xmode/", "region": "us-east-1"},
    "feeds": ["us-daily"],
}
KEY = "arn:aws:kms:us-east-1:111122223333:key/x"


def destined(**more: Any) -> dict[str, Any]:
    return {"destination": {"bucket": "acme-data", **more}}


FEED: dict[str, Any] = {"name": "us-daily", "source": "/data", "period": "day", "partition": "%Y/%m/%d"}


def refusal(model: type[Any], **values: Any) -> str:
    """The one complaint about these values, with its key."""
    with pytest.raises(ValidationError) as caught:
        model(**values)
    # A list whose items are wrong is too short to pydantic as well; the files' reader tells it once.
    (error,) = (one for one in caught.value.errors() if one["type"] != "too_short" or not one["input"])
    return f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"


def change(at: str, limit: object = "1MB", **more: object) -> dict[str, object]:
    return {"from": at, "limit": limit, **more}


def test_an_empty_service_is_whole() -> None:
    service = Service()
    assert service.vendor.principal_arn == "arn:aws:iam::366810793500:user/xmode-data-transfer"
    assert (service.vendor.account_id, service.vendor.partition) == ("366810793500", "aws")
    assert service.ledger == "sqlite:///var/ledger.db"
    assert service.engine is Engine.AUTO
    assert service.limits == Limits(
        parallel_objects=16, parallel_objects_per_customer=16, memory_bytes=134_217_728
    )
    assert service.limits.bandwidth_bytes_per_second is None


@pytest.mark.parametrize("model", [Service(), Feed(**FEED), Customer(**CUSTOMER)])
def test_a_model_cannot_be_changed(model: Any) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, next(iter(type(model).model_fields)), "other")


@pytest.mark.parametrize(("model", "values"), [(Service, {}), (Feed, FEED), (Customer, CUSTOMER)])
def test_a_key_that_is_not_known_is_refused(model: type[Any], values: dict[str, Any]) -> None:
    assert refusal(model, **values, colour="red").startswith("colour: Extra inputs")


def test_a_channel_says_where_its_url_is_kept() -> None:
    channel = {"name": "ops", "webhook": "env:OPS_WEBHOOK"}
    (found,) = Service(alerts=[channel]).alerts
    assert str(found.webhook) == "env:OPS_WEBHOOK"
    assert "give one of webhook and apprise" in refusal(Service, alerts=[{"name": "ops"}])
    assert "give one of webhook and apprise" in refusal(Service, alerts=[channel | {"apprise": "env:A"}])
    assert "two channels are called ops" in refusal(Service, alerts=[channel, channel])
    assert "token goes with webhook" in refusal(
        Service, alerts=[{"name": "ops", "apprise": "env:A", "token": "env:B"}]
    )
    assert "responsible: Tuple should have at least 1 item" in refusal(
        Service, alerts=[channel | {"responsible": []}]
    )
    leaked = refusal(Service, alerts=[channel | {"webhook": "https://hooks.example.com/s3cr3t-path"}])
    assert "env:NAME or file:PATH" in leaked
    assert "s3cr3t" not in leaked


def test_quiet_hours_begin_and_end() -> None:
    quiet = {"from": "22:00", "until": "7:00", "timezone": "Europe/Berlin"}
    found = Service(alerting={"quiet_hours": quiet}).alerting.quiet_hours
    assert found is not None
    assert "not a time of day" in refusal(Service, alerting={"quiet_hours": quiet | {"from": "24:00"}})
    assert "the same time" in refusal(Service, alerting={"quiet_hours": quiet | {"until": "22:00"}})
    assert "not a time zone" in refusal(Service, alerting={"quiet_hours": quiet | {"timezone": "Berlin"}})


def test_freshness_names_days_only_where_days_tell_periods_apart() -> None:
    days = {"days": ["mon", "fri"]}
    assert len(Feed(**FEED | {"freshness": days}).freshness.days) == 2
    assert "days says nothing" in refusal(
        Feed, **FEED | {"period": "week", "partition": "%G/%V", "freshness": days}
    )
    assert "freshness.days: Tuple should have at least 1 item" in refusal(
        Feed, **FEED | {"freshness": {"days": []}}
    )


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"principal_arn": "arn:aws:iam::366810793500:role/x"}, "not of a user"),
        (
            {"principal_arn": "arn:aws-cn:iam::366810793500:user/x"},
            "sts_region: region us-east-1 is not in aws-cn",
        ),
        ({"sts_region": "cn-north-1"}, "is not in aws,"),
        ({"sts_region": "us-east-1b"}, "did you mean the region us-east-1?"),
    ],
)
def test_the_vendor_is_a_user_in_one_partition(values: dict[str, str], told: str) -> None:
    assert told in refusal(Vendor, **values)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("50MB", 50_000_000),
        ("16MiB", 16_777_216),
        ("1.5 GB", 1_500_000_000),
        ("0.5KiB", 512),
        ("7", 7),
        ("7b", 7),
        ("2 tib", 2 * 2**40),
        (12, 12),
    ],
)
def test_a_size_is_written_as_people_do(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "MB", "5 parsecs", "-1MB", "1e6", "0.3B", "1.5", "٣MB", "5MB/s"])
def test_what_is_no_size_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"size|unit|bytes"):
        parse_size(written)


@given(st.integers(0, 10**15), st.sampled_from([("kB", 10**3), ("MiB", 2**20), ("", 1)]))
def test_a_whole_size_is_exact(number: int, unit: tuple[str, int]) -> None:
    assert parse_size(f"{number}{unit[0]}") == number * unit[1]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"parallel_objects": 0}, "greater than or equal to 1"),
        ({"parallel_objects_per_customer": 5000}, "less than or equal to 1024"),
        ({"memory_bytes": "1MiB"}, "greater than or equal to 5242880"),
        ({"bandwidth_bytes_per_second": "0"}, "greater than or equal to 1"),
        ({"memory_bytes": True and "lots"}, "is not a size"),
        ({"bandwidth_bytes_per_second": "fast"}, "bandwidth_bytes_per_second: 'fast' is not a size"),
        ({"bandwidth_bytes_per_second": []}, "the timetable is empty"),
        ({"bandwidth_bytes_per_second": {"from": "08:00"}}, "write a size, like 50MB, or a list"),
        ({"bandwidth_bytes_per_second": [{"from": "08:00"}]}, "bandwidth_bytes_per_second.0.limit: "),
        ({"bandwidth_bytes_per_second": [{"limit": "1MB"}]}, "bandwidth_bytes_per_second.0.from: "),
        ({"bandwidth_bytes_per_second": [change("24:00")]}, "did you mean 00:00?"),
        ({"bandwidth_bytes_per_second": [change("8")]}, "0.from: '8' is not a time of day"),
        ({"bandwidth_bytes_per_second": [change("08:00", 0)]}, "0.limit: "),
        (
            {"bandwidth_bytes_per_second": [change("08:00", days=[])]},
            "0.days: Tuple should have at least 1 item",
        ),
        ({"bandwidth_bytes_per_second": [change("08:00", days=["monday"])]}, "0.days.0: "),
        (
            {"bandwidth_bytes_per_second": [change("08:00", days=["mon"]), change("8:00")]},
            "bandwidth_bytes_per_second: two changes come at 08:00 of the same day",
        ),
        ({"timezone": "Berlin"}, "timezone: 'Berlin' is not a time zone"),
    ],
)
def test_a_limit_has_limits(values: dict[str, Any], told: str) -> None:
    assert told in refusal(Limits, **values)


def test_bandwidth_is_a_size_or_a_timetable() -> None:
    assert not Limits().is_limited
    monday = datetime(2026, 11, 23, 7, 30, tzinfo=UTC)
    assert Limits(bandwidth_bytes_per_second="50MB").limit_at(monday) == 50_000_000
    said = [change("8:00", "10MB", days=["mon", "sun"]), change("18:30", None)]
    limits = {"bandwidth_bytes_per_second": said, "timezone": "Europe/Berlin"}
    for limit in (Limits(**limits), Customer(**CUSTOMER, limits=limits).limits):
        assert limit.is_limited
        assert (limit.limit_at(monday), limit.limit_at(monday + timedelta(days=1))) == (10_000_000, None)


def test_a_feed_needs_little() -> None:
    feed = Feed(**FEED)
    assert (feed.include, feed.complete, feed.look_back, feed.sha256) == (
        ("*",),
        Settled(settle_seconds=300),
        31,
        False,
    )
    assert feed.partition_template is not None
    assert feed.partition_template.segments == ("%Y", "%m", "%d")


@pytest.mark.parametrize(
    "name", [".hidden", "a.csv.tmp", "b/a.part", "a.partial", "_temporary/0/part-0", "a/.git/x"]
)
def test_by_itself_a_feed_leaves_out_what_is_still_being_written(name: str) -> None:
    feed = Feed(**FEED)
    selection = Selection.of(feed.include, feed.exclude)
    assert not selection.takes(name)
    assert selection.takes("a/part-0.csv")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "US_daily"}, "name: 'US_daily' cannot be a name"),
        ({"name": "x" * 64}, "cannot be a name"),
        ({"name": "-x"}, "cannot be a name"),
        ({"source": "data"}, "source: 'data' is neither an absolute path"),
        ({"source": ""}, "source: "),
        ({"source": "~/data"}, "~ is not expanded"),
        ({"source": "gs://bucket/x"}, "gs:// is not a source"),
        ({"source": "s3://Bad_Bucket/x"}, "capital letters"),
        ({"source": "s3://good-bucket/a//b"}, "empty"),
        ({"source": "s3://good-bucket/../b"}, "'..'"),
        (
            {"partition": None},
            'partition: a feed by day says how its directories are named, like partition: "%Y/%m/%d"',
        ),
        ({"partition": "%Y/%m"}, "partition: a feed by day needs exactly"),
        ({"partition": "/%Y/%m/%d"}, "relative path"),
        ({"period": "daily"}, "period: "),
        ({"include": []}, "include: "),
        ({"include": ["a//b"]}, "can match nothing"),
        ({"exclude": [""]}, "an empty pattern matches nothing"),
        ({"complete": {}}, "write {marker: _SUCCESS} or {settle_seconds: 300}"),
        ({"complete": {"markr": "x"}}, "did you mean marker?"),
        ({"complete": "_SUCCESS"}, "write {marker: _SUCCESS}"),
        ({"complete": {"marker": "x", "settle_seconds": 3}}, "choose one of marker and settle_seconds"),
        ({"complete": {"marker": "a/b"}}, "complete.marker: 'a/b' is not a file name"),
        ({"complete": {"marker": ".."}}, "is not a file name"),
        ({"complete": {"settle_seconds": -1}}, "complete.settle_seconds: "),
        ({"complete": {"settle_seconds": "5 min"}}, "complete.settle_seconds: "),
        ({"look_back": 0}, "look_back: "),
        ({"sha256": "maybe"}, "sha256: "),
    ],
)
def test_a_refused_feed_is_explained_once(values: dict[str, Any], told: str) -> None:
    assert told in refusal(Feed, **{**FEED, **values})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"partition": "%Y"}, "partition: a drop folder (period: none) has no partition"),
        (
            {"complete": {"marker": "_SUCCESS"}},
            "complete: a drop folder (period: none) is never complete as a whole",
        ),
        ({"look_back": 3}, "look_back: a drop folder (period: none) has no periods"),
        (
            {"checks": {"min_files": 3}},
            "checks.min_files: a drop folder (period: none) is judged file by file",
        ),
        ({"checks": {"min_bytes": "1GB"}}, "checks.min_bytes: a drop folder"),
        ({"checks": {"change": {"files": "30%"}}}, "checks.change: a drop folder"),
        ({"checks": {"parquet": {"schema": "same"}}}, "checks.parquet: a drop folder"),
        ({"checks": {"csv": {"header": "same"}}}, "checks.csv: a drop folder"),
        ({"checks": {"empty_period": "deliver"}}, "checks.empty_period: a drop folder"),
    ],
)
def test_a_drop_folder_has_no_periods(values: dict[str, Any], told: str) -> None:
    assert told in refusal(Feed, name="drops", source="/drops", period="none", **values)


def test_a_drop_folder_reads_files_through() -> None:
    feed = Feed(name="drops", source="/drops", period="none", checks={"deep": "true", "on_failure": "warn"})
    assert (feed.checks.deep, feed.checks.on_failure) == (True, "warn")


@pytest.mark.parametrize(
    ("checks", "told"),
    [
        ({"min_files": 0}, "checks.min_files: "),
        ({"min_bytes": "1XB"}, "checks.min_bytes: 'XB' is not a unit"),
        ({"change": {"bytes": "50"}}, "checks.change.bytes: '50' is not a percentage; write it like 50%"),
        ({"change": {"bytes": "-5%"}}, "checks.change.bytes: '-5%' is not a percentage"),
        ({"change": {"files": "0%"}}, "checks.change.files: "),
        ({"change": {"against": 2}}, "checks.change.against: "),
        ({"parquet": {"schema": "any"}}, "checks.parquet.schema: "),
        ({"csv": {}}, "checks.csv.header: Field required"),
        ({"empty_period": "warn"}, "checks.empty_period: "),
        ({"minfiles": 3}, "checks.minfiles: "),
    ],
)
def test_refused_checks_are_explained_once(checks: dict[str, Any], told: str) -> None:
    assert told in refusal(Feed, **FEED, checks=checks)


def test_checks_have_sizes_and_percentages() -> None:
    checks = Feed(**FEED, checks={"min_bytes": "1GB", "change": {"bytes": "12.5 %"}}).checks
    assert checks.change is not None
    assert (checks.min_bytes, checks.change.bytes, checks.change.against) == (10**9, 12.5, 14)
    assert Feed(**FEED).checks == Feed(**FEED, checks={}).checks


def test_a_schema_is_compared_only_where_it_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmode_transfer.config.checks.find_spec", lambda name: None)
    told = refusal(Feed, **FEED, checks={"parquet": {"schema": "same"}})
    assert told.endswith("this needs pyarrow; install it with `pip install 'xmode-transfer[formats]'`")
    assert Feed(**FEED, checks={"deep": True}).checks.deep


def test_completeness_is_chosen_by_its_key() -> None:
    assert Feed(**FEED, complete={"marker": "_SUCCESS"}).complete == Marker(marker="_SUCCESS")
    assert Feed(**FEED, complete={"settle_seconds": "60"}).complete == Settled(settle_seconds=60)
    assert Feed(**FEED, complete=Marker(marker="DONE")).complete == Marker(marker="DONE")


def test_a_customers_account_owns_its_bucket_unless_another_is_named() -> None:
    assert Customer(**CUSTOMER).bucket_owner == "111122223333"
    other = Customer(**{**CUSTOMER, "destination": {"bucket": "acme-data", "bucket_owner": "000000000042"}})
    assert (other.bucket_owner, other.account_id) == ("000000000042", "111122223333")


def test_a_customer_is_active_and_keeps_everything_by_itself() -> None:
    customer = Customer(**CUSTOMER)
    assert (customer.state, customer.schedule, customer.retention) == (CustomerState.ACTIVE, None, None)
    assert (customer.partition, customer.destination.checksums) == ("aws", "full")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "Acme"}, "name: 'Acme' cannot be a name"),
        ({"company": "  "}, "company: write the company's name"),
        ({"company": "a\nb"}, "company: write the company's name"),
        ({"feeds": []}, "feeds: Tuple should have at least 1 item"),
        ({"feeds": ["a", "b", "a"]}, "feeds: a is listed twice"),
        ({"state": "paused"}, "state: "),
        ({"retention": {}}, "retention: give at least one of days, keep_last and max_bytes"),
        ({"retention": {"days": 0}}, "retention.days: "),
        ({"destination": {"bucket": "acme-data", "region": "cn-north-1"}}, "destination: region cn-north-1"),
        ({"destination": {"bucket": "acme-data", "bucket_owner": "123"}}, "did you mean 000000000123?"),
        ({"destination": {"bucket": "acme-data", "storage_class": "COLD"}}, "destination.storage_class: "),
        (
            {
                "destination": {
                    "bucket": "acme-data",
                    "region": "eu-west-1",
                    "kms_key_arn": "arn:aws:kms:us-east-1:111122223333:key/x",
                }
            },
            "destination.kms_key_arn: S3 takes only keys of the bucket's own region, here eu-west-1",
        ),
        ({"schedule": {"cron": "30 6 * *"}}, "schedule.cron: cron has five fields"),
        (destined(encryption="sse-kms"), "destination.encryption: sse-kms needs the key"),
        (destined(encryption="sse-s3", kms_key_arn=KEY), "destination.encryption: sse-s3 uses no key"),
        (destined(encryption="none", kms_key_arn=KEY), "destination.encryption: none uses no key"),
        (destined(encryption="sse-kms", kms_key_arn="1234"), "destination.kms_key_arn: '1234' is not the AR"),
        (destined(encryption="aes"), "destination.encryption: "),
        (destined(metadata={"xmode-delivery": "x"}), "names that begin with xmode- are our own"),
        (destined(metadata={"XMode-Feed": "x"}), "names that begin with xmode- are our own"),
        (destined(metadata={"Department": "x"}), "destination.metadata: 'Department' cannot be a name"),
        (destined(metadata={"": "x"}), "destination.metadata: '' cannot be a name"),
        (destined(metadata={"a_b": "x"}), "cannot be a name"),
        (destined(metadata={"a": "é"}), "write printable ASCII"),
        (destined(metadata={"a": "b\r\nx-amz-acl: public-read"}), "write printable ASCII"),
        (destined(metadata={"a": " b"}), "without spaces at its ends"),
        (destined(metadata={"a": ""}), "write printable ASCII"),
        (destined(metadata={"a": "x" * 1920}), "have 1,921 bytes together; there is room for 1,920"),
    ],
)  # fmt: skip
def test_a_refused_customer_is_explained_once(values: dict[str, Any], told: str) -> None:
    assert told in refusal(Customer, **{**CUSTOMER, **values})


@pytest.mark.parametrize(
    "cron",
    ["30 6 * * *", "*/15 * * * *", "0 0 * * 7", "0 0 * * 0", "0 9-17 * * MON-FRI", "0 0 29 2 *", "0 0 L * *"],
)
def test_a_cron_expression_is_crontabs(cron: str) -> None:
    assert Schedule(cron=cron).timezone == "UTC"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"cron": "0 30 6 * * *"}, "five fields (minute, hour, day of month, month, day of week)"),
        ({"cron": ""}, "this has 0"),
        ({"cron": "@daily"}, "did you mean 0 0 * * *?"),
        ({"cron": "@reboot"}, "write five fields, like 30 6 * * *"),
        ({"cron": "60 6 * * *"}, "bad minute"),
        ({"cron": "0 0 * * 8"}, "bad day-of-week"),
        ({"cron": "0 0 30 2 *"}, "bad day-of-month"),
        ({"cron": "0 6 * * *", "timezone": "America/NewYork"}, "did you mean America/New_York?"),
        ({"cron": "0 6 * * *", "timezone": "New York"}, "did you mean America/New_York?"),
        ({"cron": "0 6 * * *", "timezone": "berlin"}, "did you mean Europe/Berlin?"),
        ({"cron": "0 6 * * *", "timezone": "../../etc/passwd"}, "is not a time zone"),
        ({"cron": "0 6 * * *", "timezone": "Europe"}, "is not a time zone"),
        ({"cron": "0 6 * * *", "timezone": ""}, "is not a time zone"),
    ],
)
def test_a_refused_schedule_is_explained(values: dict[str, str], told: str) -> None:
    assert told in refusal(Schedule, **values)


@pytest.mark.parametrize(
    ("said", "hold"),
    [
        (True, True),
        ("yes", True),
        ("off", False),
        (["us-daily", "us-daily/2026-11-22"], ("us-daily", "us-daily/2026-11-22")),
    ],
)
def test_a_hold_is_all_or_named(said: Any, hold: Any) -> None:
    assert Customer(**CUSTOMER, hold=said).hold == hold


@pytest.mark.parametrize(
    "said", [{"a": 1}, [["us-daily"]], ["Us-Daily"], ["us-daily/"], ["us-daily/today"], 7]
)
def test_a_hold_that_cannot_be_meant_is_refused(said: Any) -> None:
    assert refusal(Customer, **CUSTOMER, hold=said).startswith("hold: ")


def test_a_feed_s_policy_takes_the_place_of_the_customer_s() -> None:
    retention = Retention(days=30, by="delivery", feeds={"us-daily": {"keep_last": 7}})
    own = retention.policy_of("us-daily")
    assert own is not None
    assert (own.days, own.keep_last, own.by) == (None, 7, "period")
    assert retention.policy_of("drops") is retention
    assert Retention(feeds={"us-daily": {"days": 1}}).policy_of("drops") is None


@pytest.mark.parametrize(("said", "fraction"), [("50%", 0.5), ("7 %", 0.07), (1, 1.0), ("0.25", 0.25)])
def test_a_fraction_may_be_percent(said: Any, fraction: float) -> None:
    assert Retention(days=1, caps={"max_fraction": said}).caps.max_fraction == fraction


@pytest.mark.parametrize(
    ("said", "encryption"),
    [
        ({}, "none"),
        ({"encryption": "none"}, "none"),
        ({"encryption": "sse-s3"}, "sse-s3"),
        ({"kms_key_arn": KEY}, "sse-kms"),
        ({"kms_key_arn": KEY, "encryption": "sse-kms"}, "sse-kms"),
        ({"kms_key_arn": None}, "none"),
    ],
)
def test_a_key_alone_means_kms(said: dict[str, Any], encryption: str) -> None:
    destination = Destination(bucket="acme-data", **said)
    assert destination.encryption == encryption
    assert destination.kms_key_arn == said.get("kms_key_arn")


def test_metadata_may_fill_what_s3_takes() -> None:
    metadata = {"cost-centre": "4711", "a": "x" * (1920 - 16)}
    assert Destination(bucket="acme-data", metadata=metadata).metadata == metadata


@pytest.mark.parametrize(
    ("word", "told"),
    [("prefx", " (did you mean prefix?)"), ("PREFIX", " (did you mean prefix?)"), ("zebra", "")],
)
def test_a_near_word_is_suggested_and_a_far_one_not(word: str, told: str) -> None:
    assert did_you_mean(word, ["prefix", "region", "bucket"]) == told


@pytest.mark.parametrize(
    ("listen", "host", "port", "is_local"),
    [
        ("127.0.0.1:8321", "127.0.0.1", 8321, True),
        ("127.8.0.1:0", "127.8.0.1", 0, True),
        ("localhost:65535", "localhost", 65_535, True),
        ("[::1]:80", "::1", 80, True),
        ("0.0.0.0:8321", "0.0.0.0", 8321, False),
        ("[::]:8321", "::", 8321, False),
        ("10.1.2.3:80", "10.1.2.3", 80, False),
    ],
)
def test_an_address_is_taken_apart(listen: str, host: str, port: int, is_local: bool) -> None:
    page = StatusPage(listen=listen, token=SecretRef(SecretKind.ENV, "PAGE_TOKEN"))
    assert (page.host, page.port, page.is_local) == (host, port, is_local)


@pytest.mark.parametrize("listen", ["0.0.0.0:8321", "[::]:8321", "10.1.2.3:80", "[::ffff:10.1.2.3]:80"])
def test_others_can_reach_it_only_with_a_token(listen: str) -> None:
    with pytest.raises(ValidationError, match="anyone who can reach"):
        StatusPage(listen=listen)


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("8321", "did you mean 127.0.0.1:8321?"),
        ("127.0.0.1", "did you mean 127.0.0.1:8321?"),
        (":8321", "127.0.0.1:8321 for this machine alone, 0.0.0.0:8321 for all"),
        ("127.0.0.1:65536", "an address and a port"),
        ("::1:8321", "an address and a port"),
        ("status.example.com:80", "is not an IP address"),
        ("http://127.0.0.1:80", "an address and a port"),
        ("", "an address and a port"),
    ],
)
def test_what_is_no_address_is_told_with_what_is(listen: str, told: str) -> None:
    with pytest.raises(ValidationError, match="listen") as caught:
        StatusPage(listen=listen)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "host", ["https://status.example.com/x", "Status.Example.com", "status.example.com:443"]
)
def test_a_host_is_a_name_alone(host: str) -> None:
    with pytest.raises(ValidationError, match=r"did you mean status\.example\.com\?"):
        StatusPage(hosts=(host,))


def test_there_is_a_page_for_this_machine_unless_it_is_off() -> None:
    assert Service().status_page == StatusPage(listen="127.0.0.1:8321")
    for off in ("off", "Off", "no", "false", False):
        assert Service.model_validate({"status_page": off}).status_page is None
    for neither in ("on", True, "127.0.0.1:80", None):
        with pytest.raises(ValidationError, match="write off, or"):
            Service.model_validate({"status_page": neither})


def test_the_probes_have_a_port_of_their_own_or_none() -> None:
    assert StatusPage().probes is None
    assert StatusPage(probes="0.0.0.0:8323").probes == "0.0.0.0:8323"  # they want no token
    with pytest.raises(ValidationError, match="`probes` has the page's port, 8321"):
        StatusPage(listen="127.0.0.1:8321", probes="0.0.0.0:8321")
    with pytest.raises(ValidationError, match="an address and a port"):
        StatusPage(probes="8323")
