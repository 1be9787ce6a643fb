"""What every request to a customer's bucket is made of, whichever engine sends it.

The contract with the customer (setup guide, permission policy): objects are put with the canned ACL
``bucket-owner-full-control``, or not at all.
"""

from collections.abc import Mapping

from xmode_transfer.config import Destination, Encryption

ACL = "bucket-owner-full-control"
TOKEN_METADATA = "xmode-delivery"
SINGLE_PUT_MAX_BYTES = 5 * 1024**3
"""S3 User Guide, "Uploading objects": one PutObject takes 5 GB at most; so does one part."""


_ENCRYPTIONS = {Encryption.SSE_S3: "AES256", Encryption.SSE_KMS: "aws:kms"}
"""What S3 calls them (S3 API reference, PutObject)."""


def metadata(token: str, more: Mapping[str, str], of_destination: Mapping[str, str] = {}) -> dict[str, str]:
    """The object's metadata; what is ours cannot be overridden by what the destination or the caller adds."""
    return {**of_destination, **more, TOKEN_METADATA: token}


def creation(destination: Destination) -> dict[str, str]:
    """What PutObject and CreateMultipartUpload carry for this destination, and nothing else may (UploadPart
    with an ACL is refused by S3). Names are the S3 API's. Encryption is named only where it is configured: a
    bucket's default applies by itself."""
    parameters = {"ACL": ACL}
    if destination.encryption in _ENCRYPTIONS:
        parameters["ServerSideEncryption"] = _ENCRYPTIONS[destination.encryption]
    if destination.kms_key_arn is not None:
        parameters["SSEKMSKeyId"] = destination.kms_key_arn
    if destination.storage_class is not None:
        parameters["StorageClass"] = str(destination.storage_class)
    return parameters
