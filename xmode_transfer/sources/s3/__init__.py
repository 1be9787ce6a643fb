"""Files of a feed in an S3 bucket of ours, read with our own credentials."""

from xmode_transfer.sources.s3.bucket import OwnClient, own_client
from xmode_transfer.sources.s3.source import S3Source
