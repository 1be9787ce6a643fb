import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmode_transfer.model.selection import Selection, check_pattern


def takes(selection: Selection, path: str) -> bool:
    directory, slash, name = path.rpartition("/")
    whole = selection.takes(path)
    in_walk = not any(
        selection.leaves_out("/".join(directory.split("/")[: depth + 1]))
        for depth in range(directory.count("/") + 1 if slash else 0)
    ) and bool(selection.chooser(directory + slash)(name))
    assert whole == in_walk, "a walk and a listing must agree"
    return whole


@pytest.mark.parametrize(
    ("pattern", "matched", "not_matched"),
    [
        ("*.csv", ["a.csv", ".csv", "deep/down/a.csv"], ["a.csv.gz", "a.CSV", "csv"]),
        ("part-?.csv", ["part-1.csv", "x/part-é.csv"], ["part-10.csv", "part-.csv"]),
        ("[ab].csv", ["a.csv", "b.csv"], ["c.csv", "ab.csv"]),
        ("[!ab].csv", ["c.csv"], ["a.csv", "b.csv"]),
        ("[a-c]*", ["a", "c9"], ["d", "-"]),
        ("[]x]", ["]", "x"], ["a"]),
        ("[z-a]", [], ["z", "a", "-"]),
        ("[open", ["[open"], ["o"]),
        ("*", ["a", ".hidden", "x/y/z", "new\nline"], []),
        ("**", ["a", "x/y"], []),
        ("a**b", ["ab", "a--b", "x/ab"], ["a/b"]),
        ("*a*b*c", ["abc", "xaybzc", "abcbc"], ["acb", "ab"]),
        ("/totals.csv", ["totals.csv"], ["x/totals.csv"]),
        ("x/*.csv", ["x/a.csv"], ["a.csv", "x/y/a.csv", "w/x/a.csv"]),
        ("x/**", ["x/a", "x/y/z"], ["x", "y/x/a"]),
        ("**/x/*.csv", ["x/a.csv", "w/x/a.csv", "v/w/x/a.csv"], ["wx/a.csv", "x/y/a.csv"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "ab", "a/b/c"]),
        ("a/**/**/b", ["a/b", "a/x/y/b"], ["a/c"]),
        ("x/[!a]", ["x/b"], ["x/a", "x//"]),
        ("a?b/c", ["a.b/c"], ["a/b/c"]),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_a_pattern_takes_what_the_table_says(
    pattern: str, matched: list[str], not_matched: list[str]
) -> None:
    selection = Selection.of(include=[pattern])
    assert [path for path in matched if not takes(selection, path)] == []
    assert [path for path in not_matched if takes(selection, path)] == []


def test_exclude_wins_over_include() -> None:
    selection = Selection.of(include=["*.csv", "extra/*"], exclude=["_*", "extra/old*"])
    assert takes(selection, "a.csv")
    assert takes(selection, "extra/new.txt")
    assert not takes(selection, "_a.csv")
    assert not takes(selection, "extra/old.csv")
    assert not takes(selection, "a.txt")


def test_an_empty_include_takes_everything() -> None:
    assert takes(Selection.of(), "any/thing")


def test_the_marker_is_never_delivered_and_its_namesake_below_is() -> None:
    selection = Selection.of(include=["*"], marker="_SUCCESS")
    assert not takes(selection, "_SUCCESS")
    assert takes(selection, "orders/_SUCCESS")


@pytest.mark.parametrize(
    ("exclude", "directory", "left_out"),
    [
        ("tmp/**", "tmp", True),
        ("tmp/**", "tmp/", True),
        ("tmp/**", "x/tmp", False),
        ("**/tmp/**", "x/tmp", True),
        ("**/tmp/**", "tmp", True),
        ("tmp*/**", "tmp-1", True),
        ("tmp/*", "tmp", False),
        ("tmp/*", "tmp/x", True),
        ("_temporary", "_temporary", True),
        ("_temporary", "x/y/_temporary/", True),
        (".*", "x/.snapshot", True),
        ("x/old", "x/old", True),
        ("x/old", "old", False),
    ],
)
def test_an_excluded_directory_takes_all_that_lies_in_it_along(
    exclude: str, directory: str, left_out: bool
) -> None:
    selection = Selection.of(exclude=[exclude])
    assert selection.leaves_out(directory) is left_out
    if left_out:
        assert not takes(selection, directory.rstrip("/") + "/a")
        assert not takes(selection, directory.rstrip("/") + "/a/b")
    assert takes(selection, "elsewhere/a")


@pytest.mark.parametrize("pattern", ["", "tmp/", "/", "a//b", "../a", "a/./b", "a/.."])
def test_a_pattern_that_can_match_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError):
        check_pattern(pattern)
    with pytest.raises(ValueError):
        Selection.of(exclude=[pattern])


names = st.text(alphabet="ab.-[]!*?^\\é\n", min_size=1, max_size=8).filter(lambda n: n.strip(".") != "")


@given(pattern=names, name=names)
def test_a_plain_pattern_agrees_with_fnmatch(pattern: str, name: str) -> None:
    assert takes(Selection.of(include=[pattern]), name) == fnmatch.fnmatchcase(name, pattern)


@given(path=st.lists(names, min_size=1, max_size=4))
def test_a_file_is_matched_by_its_own_escaped_path(path: list[str]) -> None:
    exact = "/" + "/".join("".join(f"[{c}]" if c in "*?[" else c for c in name) for name in path)
    assert takes(Selection.of(include=[exact]), "/".join(path))


def test_a_hostile_pattern_is_matched_in_no_time() -> None:
    selection = Selection.of(include=["*a" * 30 + "b", "**/" + "*a" * 30 + "b/c"])
    started = time.process_time()
    assert not takes(selection, "a" * 250)
    assert not takes(selection, "a" * 250 + "/c")
    assert time.process_time() - started < 5  # by trying everything it would be years
