"""What every request to a customer's bucket is made of, whichever engine sends it.

The contract with the customer (setup guide, permission policy): objects are put with the canned ACL
``bucket-owner-full-control``, or not at all.
"""

from collections.abc import Mapping

from xmode_transfer.domain.config import Destination

ACL = "bucket-owner-full-control"
TOKEN_METADATA = "xmode-delivery"
SINGLE_PUT_MAX_BYTES = 5 * 1024**3
"""S3 User Guide, "Uploading objects": one PutObject takes 5 GB at most; so does one part."""


def metadata(token: str, more: Mapping[str, str]) -> dict[str, str]:
    """The object's metadata; the delivery token cannot be overridden by what the caller adds."""
    return {**more, TOKEN_METADATA: token}


def creation(destination: Destination) -> dict[str, str]:
    """What PutObject and CreateMultipartUpload carry for this destination, and nothing else may (UploadPart
    with an ACL is refused by S3). Names are the S3 API's. Encryption is named only where it is configured: a
    bucket's default applies by itself."""
    parameters = {"ACL": ACL}
    if destination.kms_key_arn is not None:
        parameters["ServerSideEncryption"] = "aws:kms"
        parameters["SSEKMSKeyId"] = destination.kms_key_arn
    if destination.storage_class is not None:
        parameters["StorageClass"] = str(destination.storage_class)
    return parameters
