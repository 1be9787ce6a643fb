"""Whether an object's ACL is still what its delivery left behind."""

import pytest

from xmode_transfer.aws.stores import FULL_CONTROL, Grant, ObjectAcl, difference, usual

OWNER, WRITER = "o" * 64, "w" * 64
EVERYBODY = "http://acs.amazonaws.com/groups/global/AllUsers"


def acl(*grants: tuple[str, str], owner: str = OWNER) -> ObjectAcl:
    return ObjectAcl(owner, frozenset(Grant(*grant) for grant in grants))


INTACT = acl((OWNER, FULL_CONTROL))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (INTACT, None),
        (acl(), "its owner no longer has FULL_CONTROL"),
        (acl((OWNER, "READ")), "its owner no longer has FULL_CONTROL; the account oooooooooooo… has READ"),
        (acl((OWNER, FULL_CONTROL), (EVERYBODY, "READ")), "everybody on the internet has READ"),
        (acl((OWNER, FULL_CONTROL), (WRITER, "WRITE_ACP")), "the account wwwwwwwwwwww… has WRITE_ACP"),
        (acl((OWNER, FULL_CONTROL), ("a@b.example", "READ")), "the account a@b.example has READ"),
    ],
)
def test_in_the_role_s_own_account_only_the_owner_has_full_control(
    found: ObjectAcl, told: str | None
) -> None:
    assert difference(found) == told


@pytest.mark.parametrize(
    ("owner", "grantee", "told"),
    [
        ("111122223333$xmode", "111122223333$admin", None),  # as Ceph names a bucket's owner
        ("xmode", "111122223333$admin", None),
        ("111122223333$xmode", "111122223333", None),
        ("111122223333$xmode", "999988887777$other", "the account 999988887777$other has FULL_CONTROL"),
        ("$xmode", "$other", "the account $other has FULL_CONTROL"),
        (OWNER, WRITER, "the account wwwwwwwwwwww… has FULL_CONTROL"),
        ("111122223333$xmode", EVERYBODY, "everybody on the internet has FULL_CONTROL"),
    ],
)
def test_the_buckets_owner_is_no_stranger_where_ids_name_the_account(
    owner: str, grantee: str, told: str | None
) -> None:
    found = acl((owner, FULL_CONTROL), (grantee, FULL_CONTROL), owner=owner)
    assert difference(found, bucket_owner="111122223333") == told


def test_from_another_account_the_other_objects_say_what_is_usual() -> None:
    both = acl((OWNER, FULL_CONTROL), (WRITER, FULL_CONTROL), owner=WRITER)
    private = acl((WRITER, FULL_CONTROL), owner=WRITER)
    expected = usual([both, private, both])
    assert expected == both
    assert difference(both, expected) is None
    assert difference(private, expected) == "the account oooooooooooo… no longer has FULL_CONTROL"
    assert difference(INTACT, expected) == (
        "its owner is the account oooooooooooo… and was the account wwwwwwwwwwww…; "
        "the account wwwwwwwwwwww… no longer has FULL_CONTROL"
    )


def test_of_two_that_are_as_frequent_the_one_that_grants_more_is_usual() -> None:
    both = acl((OWNER, FULL_CONTROL), (WRITER, FULL_CONTROL), owner=WRITER)
    assert usual([acl((WRITER, FULL_CONTROL), owner=WRITER), both]) == both
    assert usual([]) is None
