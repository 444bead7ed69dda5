"""Hostlists. That they are Slurm's is checked against scontrol in tests/slurm/test_hostlists_on_slurm.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.hostlist import compress, expand

stems = st.sampled_from(["n", "gpu-a100-", "r1n", "x_", "rack2.n", "", "login"])
numbers = st.one_of(st.integers(0, 120).map(str), st.integers(0, 120).map("{:03d}".format), st.just(""))
hosts = st.builds(str.__add__, stems, numbers).filter(bool)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("login", ["login"]),
        ("n[08-10],login", ["n08", "n09", "n10", "login"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("n[099-101]", ["n099", "n100", "n101"]),
        ("n[3,1-2,1]", ["n3", "n1", "n2", "n1"]),
        ("n[1,01]", ["n1", "n01"]),
        ("n0[1-2],n1[0-1]", ["n01", "n02", "n10", "n11"]),
        ("r[1-2]n[0-1]", ["r1n0", "r1n1", "r2n0", "r2n1"]),
        ("n[1-2][3-4]", ["n13", "n14", "n23", "n24"]),
        ("n[1-2]-ib", ["n1-ib", "n2-ib"]),
        ("n1-2", ["n1-2"]),
        ("[1-2]", ["1", "2"]),
        (" n[1-2] , m1 ", ["n1", "n2", "m1"]),
    ],
)
def test_a_hostlist_stands_for_these_names_in_this_order(text: str, names: list[str]) -> None:
    assert expand(text) == names


def test_of_three_brackets_the_last_varies_fastest_then_the_first() -> None:
    assert expand("a[1-2]b[1-2]c[1-2]") == [
        "a1b1c1", "a1b1c2", "a2b1c1", "a2b1c2", "a1b2c1", "a1b2c2", "a2b2c1", "a2b2c2",
    ]  # fmt: skip


def test_a_bracket_of_one_number_counts_as_a_bracket_for_the_order() -> None:
    assert expand("a[1-2]b[1-2]c[5]") == ["a1b1c5", "a2b1c5", "a1b2c5", "a2b2c5"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("n[1-2", "brackets"),
        ("n1]", "brackets"),
        ("n[[1]]", "brackets"),
        ("n[5-3]", "runs backwards"),
        ("n[]", "neither a number nor a range"),
        ("n[1,]", "neither a number nor a range"),
        ("n[a-c]", "neither a number nor a range"),
        ("n[0-8:2]", "neither a number nor a range"),
        ("", "empty element"),
        ("n1,", "empty element"),
        ("n1,,n2", "empty element"),
        ("n1 n2", "a space"),
        ("n[0-9999999]", "more than 1,000,000"),
        ("a[0-9999]b[0-9999]", "more than 1,000,000"),
        ("n[1-99999999999999999999999]", "more than 1,000,000"),
    ],
)
def test_what_is_no_hostlist_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        expand(text)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["n1", "n2", "n3"], "n[1-3]"),
        (["n08", "n09", "n10", "login", "n11"], "n[08-10],login,n11"),
        (["n099", "n100"], "n[099-100]"),
        (["n9", "n10"], "n[9-10]"),
        (["n3", "n1", "n2"], "n[3,1-2]"),
        (["n5", "n5", "n6"], "n[5,5-6]"),
        (["n1", "n01"], "n[1,01]"),
        (["r1n1", "r1n2", "r2n1"], "r1n[1-2],r2n1"),
        ([], ""),
    ],
)
def test_names_are_joined_with_their_neighbours(names: list[str], text: str) -> None:
    assert compress(names) == text


@given(st.lists(hosts, min_size=1, max_size=40))
def test_compressing_and_expanding_gives_the_same_names_in_the_same_order(names: list[str]) -> None:
    assert expand(compress(names)) == names


@given(st.lists(hosts, min_size=1, max_size=40))
def test_compressing_again_changes_nothing(names: list[str]) -> None:
    once = compress(names)
    assert compress(expand(once)) == once


@given(st.text(alphabet="n0123456789[],-x ", max_size=30))
def test_any_text_is_a_hostlist_or_refused(text: str) -> None:
    try:
        names = expand(text, limit=2000)
    except ValueError:
        return
    assert names
    assert all(names)
