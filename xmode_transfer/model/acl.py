"""Who may do what with an object, and whether that is still what its delivery left behind.

Accounts are told by canonical user IDs, which nobody can work out from an account's number (S3 User Guide,
"Access control list overview"), and the guide lets us ask for none. So an ACL is judged by what it must be:

- The role lies in the bucket's own account (the guide's case): whatever the bucket's Object Ownership is, the
  owner of an object of ours is the bucket's owner, and ``bucket-owner-full-control`` leaves exactly one
  grant. Where ACLs are turned off (BucketOwnerEnforced), S3 shows that same grant.
- The role lies in another account: the object's owner is the bucket's (BucketOwnerPreferred or -Enforced), or
  the role's with a second grant for the bucket's (ObjectWriter). Which one, its other objects tell.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

FULL_CONTROL = "FULL_CONTROL"
_GROUPS = {
    "http://acs.amazonaws.com/groups/global/AllUsers": "everybody on the internet",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers": "everybody with an AWS account",
    "http://acs.amazonaws.com/groups/s3/LogDelivery": "S3's log delivery",
}


class Grant(NamedTuple):
    """``grantee`` is a canonical user ID, a group's URI or an e-mail address; ``permission`` as S3 names
    it."""

    grantee: str
    permission: str


@dataclass(frozen=True, slots=True)
class ObjectAcl:
    """An object's owner (a canonical user ID) and what is granted to whom."""

    owner_id: str
    grants: frozenset[Grant]

    @property
    def full_control(self) -> frozenset[str]:
        return frozenset(grant.grantee for grant in self.grants if grant.permission == FULL_CONTROL)


def usual(seen: Iterable[ObjectAcl]) -> ObjectAcl | None:
    """The ACL that most of these have; of two that are as frequent, the one with more grants of full control.
    For a role outside of the bucket's account: what our objects have there when nobody has touched them."""
    counted = Counter(seen)
    if not counted:
        return None
    return max(counted, key=lambda acl: (counted[acl], len(acl.full_control), acl.owner_id))


def difference(found: ObjectAcl, expected: ObjectAcl | None = None, *, bucket_owner: str = "") -> str | None:
    """What is not as the delivery left it, in words; None when all is. Without ``expected`` (the role lies in
    the bucket's own account) the owner alone has full control, and nobody else anything: but stores that
    name users within an account (``account$user``, Ceph) grant the bucket's owner, account ``bucket_owner``,
    beside the object's."""
    if expected is None:
        own = {grant for grant in found.grants if _same_account(grant.grantee, found.owner_id, bucket_owner)}
        expected = ObjectAcl(found.owner_id, frozenset({Grant(found.owner_id, FULL_CONTROL), *own}))
    told = []
    if found.owner_id != expected.owner_id:
        told.append(f"its owner is {_short(found.owner_id)} and was {_short(expected.owner_id)}")
    for grant in sorted(expected.grants - found.grants):
        who = "its owner" if grant.grantee == found.owner_id else _short(grant.grantee)
        told.append(f"{who} no longer has {grant.permission}")
    told += [
        f"{_short(grant.grantee)} has {grant.permission}" for grant in sorted(found.grants - expected.grants)
    ]
    return "; ".join(told) or None


def _same_account(grantee: str, owner_id: str, bucket_owner: str) -> bool:
    """AWS's canonical IDs name no account: there the owner alone is meant."""
    if "$" not in grantee + owner_id:
        return False
    account = grantee.partition("$")[0]
    return account != "" and account in (owner_id.partition("$")[0], bucket_owner)


def _short(grantee: str) -> str:
    """A canonical ID has 64 digits, of which a person needs a few to tell it apart."""
    if grantee in _GROUPS:
        return _GROUPS[grantee]
    return f"the account {grantee[:12]}…" if len(grantee) == 64 else f"the account {grantee or '?'}"
