"""AWS policies as values: the documents that we recommend, session policies, and what policies decide."""

from xmode_transfer.aws.policy.documents import ACL
from xmode_transfer.aws.policy.evaluate import decide, evaluate
