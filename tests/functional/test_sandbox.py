"""What the sandbox allows and refuses, request by request: it must refuse what AWS refuses by the guide."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import bucket
from xmode_transfer.sandbox import accounts
from xmode_transfer.sandbox.accounts import client, owner
from xmode_transfer.sandbox.model import CustomerSetup, Sandbox, Variant

pytestmark = pytest.mark.sandbox

ACL = "bucket-owner-full-control"
PART = b"p" * (5 * 1024 * 1024)


def vendor(sandbox: Sandbox, service: str) -> Any:
    return client(
        service,
        endpoint=sandbox.endpoint,
        access_key_id=sandbox.vendor.access_key_id,
        secret_access_key=sandbox.vendor.secret_access_key,
        region="us-east-1",
    )


def assume(sandbox: Sandbox, customer: CustomerSetup, **how: Any) -> Any:
    """An S3 client of the customer's role session."""
    request = {"ExternalId": customer.external_id, "RoleSessionName": "xmode-test"} | how
    request = {name: value for name, value in request.items() if value is not None}
    answer = vendor(sandbox, "sts").assume_role(RoleArn=customer.role_arn, **request)["Credentials"]
    return client(
        "s3",
        endpoint=sandbox.endpoint,
        access_key_id=answer["AccessKeyId"],
        secret_access_key=answer["SecretAccessKey"],
        token=answer["SessionToken"],
        region=customer.region,
    )


def refused(call: Callable[..., Any], **request: Any) -> None:
    with pytest.raises(ClientError) as caught:
        call(**request)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403, caught.value


def send_in_parts(s3: Any, customer: CustomerSetup, key: str) -> None:
    upload_id = s3.create_multipart_upload(Bucket=customer.bucket, Key=key, ACL=ACL)["UploadId"]
    where = {"Bucket": customer.bucket, "Key": key, "UploadId": upload_id}
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(PartNumber=number, Body=body, **where)["ETag"]}
        for number, body in enumerate((PART, b"end"), start=1)
    ]
    s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **where)


def test_the_role_is_assumed_with_the_customers_external_id(sandbox: Sandbox, acme: CustomerSetup) -> None:
    s3 = assume(sandbox, acme)
    assert s3.list_objects_v2(Bucket=acme.bucket)["KeyCount"] == 0


@pytest.mark.parametrize("external_id", ["Another", "acmecorp", None])
def test_no_other_external_id_will_do(sandbox: Sandbox, acme: CustomerSetup, external_id: str | None) -> None:
    with pytest.raises(ClientError) as caught:
        assume(sandbox, acme, ExternalId=external_id)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_only_the_vendors_user_is_trusted(
    sandbox: Sandbox, acme: CustomerSetup, globex: CustomerSetup
) -> None:
    refused(
        owner(globex, "sts").assume_role,
        RoleArn=acme.role_arn,
        ExternalId=acme.external_id,
        RoleSessionName="stranger",
    )


def test_the_vendors_user_has_no_rights_of_its_own(sandbox: Sandbox, acme: CustomerSetup) -> None:
    s3 = vendor(sandbox, "s3")
    refused(s3.list_buckets)
    refused(s3.list_objects_v2, Bucket=acme.bucket)
    refused(s3.put_object, Bucket=acme.bucket, Key="xmode/a", Body=b"", ACL=ACL)


def test_an_object_must_give_the_customer_full_control(sandbox: Sandbox, acme: CustomerSetup) -> None:
    s3 = assume(sandbox, acme)
    key = "xmode/a.csv"
    refused(s3.put_object, Bucket=acme.bucket, Key=key, Body=b"a")
    refused(s3.put_object, Bucket=acme.bucket, Key=key, Body=b"a", ACL="public-read")
    assert bucket.list_keys(acme) == []
    s3.put_object(Bucket=acme.bucket, Key=key, Body=b"a", ACL=ACL, Metadata={"token": "t-1"})
    found = bucket.head_object(acme, key)
    assert found is not None
    assert (found.size, found.metadata) == (1, {"token": "t-1"})
    assert bucket.read_object(acme, key) == b"a"


def test_reading_and_deleting_are_granted_and_nothing_else_is(sandbox: Sandbox, acme: CustomerSetup) -> None:
    s3 = assume(sandbox, acme)
    bucket.put_object(acme, "xmode/theirs", b"theirs")
    assert s3.head_object(Bucket=acme.bucket, Key="xmode/theirs")["ContentLength"] == 6
    assert s3.get_object(Bucket=acme.bucket, Key="xmode/theirs")["Body"].read() == b"theirs"
    s3.delete_object(Bucket=acme.bucket, Key="xmode/theirs")
    assert bucket.list_keys(acme) == []
    refused(s3.list_buckets)
    refused(s3.get_bucket_versioning, Bucket=acme.bucket)
    refused(s3.list_multipart_uploads, Bucket=acme.bucket)


def test_one_customers_role_opens_no_other_customers_bucket(
    sandbox: Sandbox, acme: CustomerSetup, globex: CustomerSetup
) -> None:
    s3 = assume(sandbox, acme)
    bucket.put_object(globex, "xmode/secret", b"secret")
    refused(s3.list_objects_v2, Bucket=globex.bucket)
    refused(s3.get_object, Bucket=globex.bucket, Key="xmode/secret")
    refused(s3.put_object, Bucket=globex.bucket, Key="xmode/a", Body=b"a", ACL=ACL)
    refused(s3.delete_object, Bucket=globex.bucket, Key="xmode/secret")
    assert bucket.list_keys(globex) == ["xmode/secret"]


def test_the_guide_lets_an_upload_begin_but_no_part_in(sandbox: Sandbox, acme: CustomerSetup) -> None:
    s3 = assume(sandbox, acme)
    refused(s3.create_multipart_upload, Bucket=acme.bucket, Key="xmode/big")
    upload_id = s3.create_multipart_upload(Bucket=acme.bucket, Key="xmode/big", ACL=ACL)["UploadId"]
    where = {"Bucket": acme.bucket, "Key": "xmode/big", "UploadId": upload_id}
    refused(s3.upload_part, PartNumber=1, Body=b"x", **where)
    refused(s3.list_parts, **where)
    refused(s3.abort_multipart_upload, **where)
    assert bucket.list_uploads(acme) == [("xmode/big", upload_id)]


@pytest.mark.parametrize("variant", [Variant.ABORT_GRANTED, Variant.NO_ACL_CONDITION])
def test_parts_get_in_where_the_acl_is_no_condition_of_the_grant(
    sandbox: Sandbox, customer_factory: Callable[..., CustomerSetup], variant: Variant
) -> None:
    customer = customer_factory("parts", variant)
    send_in_parts(assume(sandbox, customer), customer, "xmode/big")
    assert bucket.read_object(customer, "xmode/big") == PART + b"end"


def test_the_corrected_policy_lets_an_upload_be_listed_and_aborted(
    sandbox: Sandbox, customer_factory: Callable[..., CustomerSetup]
) -> None:
    customer = customer_factory("abort", Variant.ABORT_GRANTED)
    s3 = assume(sandbox, customer)
    upload_id = s3.create_multipart_upload(Bucket=customer.bucket, Key="xmode/big", ACL=ACL)["UploadId"]
    where = {"Bucket": customer.bucket, "Key": "xmode/big", "UploadId": upload_id}
    s3.upload_part(PartNumber=1, Body=b"x", **where)
    assert [part["PartNumber"] for part in s3.list_parts(**where)["Parts"]] == [1]
    s3.abort_multipart_upload(**where)
    assert bucket.list_uploads(customer) == []
    refused(s3.put_object, Bucket=customer.bucket, Key="elsewhere/a", Body=b"", ACL=ACL)
    refused(s3.put_object, Bucket=customer.bucket, Key="xmode/a", Body=b"", ACL="public-read")


def test_without_the_condition_any_acl_will_do(
    sandbox: Sandbox, customer_factory: Callable[..., CustomerSetup]
) -> None:
    customer = customer_factory("free", Variant.NO_ACL_CONDITION)
    assume(sandbox, customer).put_object(Bucket=customer.bucket, Key="xmode/a", Body=b"a")
    assert bucket.list_keys(customer) == ["xmode/a"]


def test_prefix_only_grants_nothing_outside_the_prefix(
    sandbox: Sandbox, customer_factory: Callable[..., CustomerSetup]
) -> None:
    customer = customer_factory("narrow", Variant.PREFIX_ONLY, prefix="in/here/")
    s3 = assume(sandbox, customer)
    bucket.put_object(customer, "out/theirs", b"")
    s3.put_object(Bucket=customer.bucket, Key="in/here/a", Body=b"a", ACL=ACL)
    listed = s3.list_objects_v2(Bucket=customer.bucket, Prefix="in/here/")
    assert [entry["Key"] for entry in listed["Contents"]] == ["in/here/a"]
    refused(s3.list_objects_v2, Bucket=customer.bucket)
    refused(s3.list_objects_v2, Bucket=customer.bucket, Prefix="out/")
    refused(s3.get_object, Bucket=customer.bucket, Key="out/theirs")
    refused(s3.put_object, Bucket=customer.bucket, Key="out/a", Body=b"", ACL=ACL)


def test_a_kms_bucket_encrypts_what_is_put_into_it(
    sandbox: Sandbox, customer_factory: Callable[..., CustomerSetup]
) -> None:
    customer = customer_factory("crypt", Variant.KMS_BUCKET)
    assume(sandbox, customer).put_object(Bucket=customer.bucket, Key="xmode/a", Body=b"a", ACL=ACL)
    found = bucket.head_object(customer, "xmode/a")
    assert found is not None
    assert found.encryption == "aws:kms"


def test_a_versioned_bucket_keeps_what_is_deleted(
    sandbox: Sandbox, customer_factory: Callable[..., CustomerSetup]
) -> None:
    customer = customer_factory("kept", Variant.VERSIONED)
    s3 = assume(sandbox, customer)
    version = s3.put_object(Bucket=customer.bucket, Key="xmode/a", Body=b"a", ACL=ACL)["VersionId"]
    marker = s3.delete_object(Bucket=customer.bucket, Key="xmode/a")["VersionId"]
    assert bucket.list_keys(customer) == []
    assert sorted(bucket.list_versions(customer)) == sorted(
        [("xmode/a", version, False), ("xmode/a", marker, True)]
    )
    bucket.empty_bucket(customer)
    assert bucket.list_versions(customer) == []


@pytest.mark.parametrize("variant", [Variant.NO_ROLE, Variant.WRONG_EXTERNAL_ID])
def test_roles_that_cannot_be_assumed(
    sandbox: Sandbox, customer_factory: Callable[..., CustomerSetup], variant: Variant
) -> None:
    customer = customer_factory("shut", variant)
    with pytest.raises(ClientError) as caught:
        assume(sandbox, customer)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_customer_can_break_its_role_and_mend_it(sandbox: Sandbox, acme: CustomerSetup) -> None:
    s3 = assume(sandbox, acme)
    accounts.set_trust_policy(acme, accounts.guide_trust_policy("Renamed"))
    with pytest.raises(ClientError):
        assume(sandbox, acme)
    accounts.set_trust_policy(acme, accounts.trust_policy(acme))
    assume(sandbox, acme)

    document = accounts.permission_policy(acme)
    document["Statement"][0]["Action"] = "s3:PutObjectAcl"
    bucket.set_permission_policy(acme, document)
    refused(s3.put_object, Bucket=acme.bucket, Key="xmode/a", Body=b"a", ACL=ACL)
    bucket.set_permission_policy(acme, accounts.permission_policy(acme))
    s3.put_object(Bucket=acme.bucket, Key="xmode/a", Body=b"a", ACL=ACL)

    bucket.delete_role(acme)
    with pytest.raises(ClientError):
        assume(sandbox, acme)
    accounts.restore_role(acme)
    assume(sandbox, acme).delete_object(Bucket=acme.bucket, Key="xmode/a")


def test_another_region(sandbox: Sandbox, customer_factory: Callable[..., CustomerSetup]) -> None:
    customer = customer_factory("far", region="eu-west-1")
    assume(sandbox, customer).put_object(Bucket=customer.bucket, Key="xmode/a", Body=b"a", ACL=ACL)
    answer = owner(customer, "s3").head_bucket(Bucket=customer.bucket)
    assert answer["BucketRegion"] == "eu-west-1"


def test_a_session_policy_narrows_the_role(sandbox: Sandbox, acme: CustomerSetup) -> None:
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:PutObject",'
        f'"Resource":"arn:aws:s3:::{acme.bucket}/xmode/*"}}]}}'
    )
    s3 = assume(sandbox, acme, Policy=policy, RoleSessionName=f"narrow-{uuid.uuid4().hex[:8]}")
    s3.put_object(Bucket=acme.bucket, Key="xmode/a", Body=b"a", ACL=ACL)
    refused(s3.put_object, Bucket=acme.bucket, Key="other/a", Body=b"a", ACL=ACL)
    refused(s3.delete_object, Bucket=acme.bucket, Key="xmode/a")
