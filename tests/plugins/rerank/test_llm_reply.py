"""Orders are read from whatever a model says, and what was mended is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plugins.llm.reply import read_order


@pytest.mark.parametrize(
    ("content", "order", "repairs"),
    [
        ('{"ranking": [3, 1, 2, 4]}', [2, 0, 1, 3], {}),
        ('```json\n{"ranking": [3, 1, 2, 4]}\n```', [2, 0, 1, 3], {}),
        ('Here you are: {"ranking": [3, 1, 2, 4]}. [1] is best.', [2, 0, 1, 3], {}),
        ("[3, 1, 2, 4]", [2, 0, 1, 3], {}),
        ("[3] > [1] > [2] > [4]", [2, 0, 1, 3], {}),
        ("The order is 3 > 1 > 2 > 4.", [2, 0, 1, 3], {}),
        ('{"ranking": [{"index": 3, "score": 0.9}, {"index": 1}, {"index": 2}, {"index": 4}]}', [2, 0, 1, 3], {}),
        ('{"ranking": ["3", "[1]", "2", "4"]}', [2, 0, 1, 3], {}),
        ('{"ranking": [3.0, 1, 2, 4.0]}', [2, 0, 1, 3], {}),
        ('{"order": [3, 1, 2, 4]}', [2, 0, 1, 3], {}),
        ('{"ranking": [3, 3, 1]}', [2, 0, 1, 3], {"duplicate": 1, "missing": 2}),
        ('{"ranking": [0, 5, 3, 99]}', [2, 0, 1, 3], {"out_of_range": 3, "missing": 3}),
        ('{"ranking": [3, 1.5, "two", null, true, 1]}', [2, 0, 1, 3], {"unparsed": 4, "missing": 2}),
        ('{"ranking": [{"index": 3, "text": "put [4] > [1] first"}, {"index": 1}]}', [2, 0, 1, 3], {"missing": 2}),
        ("1. [3]\n2. [1]\n3. [2]\n4. [4]", [2, 0, 1, 3], {}),
        ("Best first:\n\n1. **[3]** - it holds the answer\n2. [1]\n\nThat is all.", [2, 0, 1, 3], {"missing": 2}),
        ("1) Document 3\n2) Document 1", [2, 0, 1, 3], {"missing": 2}),
        ("3\n1\n2\n4\n", [2, 0, 1, 3], {}),
        ("- 3\n- 1", [2, 0, 1, 3], {"missing": 2}),
        ('{"ranking": [3, 1, 2, 4, ]}', [2, 0, 1, 3], {}),
        ("[1, 2, 3, 4] are all relevant; best first: [3, 1, 2, 4]", [2, 0, 1, 3], {}),
        ("Ranking: 3 > 1 > 2 > 4, since documents 1, 2, 3, 4, 1, 2 say so", [2, 0, 1, 3], {}),
        ('{"explanation": "not [1] > [2] > [3] > [4]", "ranking": "3 > 1 > 2 > 4"}', [2, 0, 1, 3], {}),
        ("3", None, {}),
        ("1. 3", None, {}),
        ("-3\n-1", None, {}),
        ("1: 3\n2: 1", None, {}),
        ("1. 3\n2. 3", None, {}),
        ("2. [3]\n1. [1]", None, {}),
        ("1. 0.9\n2. 0.1", None, {}),
        ("3\n1 is good too", None, {}),
        ('{"scores": [3, 1, 2, 4]}', None, {}),
        ('{"ranking": []}', None, {}),
        ('{"ranking": [7, 8]}', None, {}),
        ('{"ranking": {"3": 1}}', None, {}),
        ("[" * 5000, None, {}),
        ("I cannot rank these.", None, {}),
        ("", None, {}),
    ],
)
def test_replies_are_read(content: str, order: list[int] | None, repairs: dict[str, int]) -> None:
    assert read_order(content, 4) == (order, repairs)


def test_whole_entries_of_a_list_that_was_cut_off_are_kept() -> None:
    objects = '{"ranking": [{"index": 12, "score": 0.9}, {"index": 3, "score": 0.5}, {"index": 1'
    assert read_order(objects, 12, complete=False) == ([11, 2, 0, 1, *range(3, 11)], {"missing": 10})
    assert first_three("1. [12]\n2. [3]\n3. [1", complete=False) == [11, 2, 0]
    assert read_order("12\n3\n1", 12, complete=False)[1] == {"missing": 10}, "1 may be half of another"


def first_three(content: str, *, complete: bool = True) -> list[int]:
    order, _ = read_order(content, 12, complete=complete)
    return (order or [])[:3]


def test_a_ten_is_no_one() -> None:
    assert first_three("[10] > [1] > [12]") == [9, 0, 11]


def test_a_number_at_the_cut_is_left_out() -> None:
    assert first_three('{"ranking": [12, 3, 10, 4', complete=False) == [11, 2, 9]
    assert first_three('{"ranking": [12, 3, 1', complete=False) == [11, 2, 0], "1 follows as not mentioned"
    assert read_order('{"ranking": [12, 3, 1', 12, complete=False)[1] == {"missing": 10}


ENTRIES = st.integers(-3, 30) | st.floats() | st.text(max_size=4) | st.none() | st.booleans()
ENTRIES |= st.integers(0, 12).map(str) | st.integers(0, 12).map(lambda number: {"index": number, "text": "[1] > [2]"})
RANKINGS = st.lists(ENTRIES).map(lambda entries: json.dumps({"ranking": entries}))


@given(
    content=st.text() | RANKINGS | RANKINGS.flatmap(lambda whole: st.integers(0, len(whole)).map(lambda n: whole[:n]))
)
def test_whatever_is_said_every_document_stands_once(content: str) -> None:
    for complete in (True, False):
        order, repairs = read_order(content, 9, complete=complete)
        assert order is None or sorted(order) == list(range(9))
        assert all(times > 0 for times in repairs.values())


@given(order=st.permutations(range(9)), cut=st.integers(0, 9))
def test_a_ranking_is_followed_to_where_it_was_cut_off(order: list[int], cut: int) -> None:
    """However far it came: what was named stands first in its order, the rest follows in its own."""
    whole = json.dumps({"ranking": [place + 1 for place in order]})
    content = ", ".join(whole.split(", ")[:cut]) + ("," if cut < 9 else "")
    found, _ = read_order(content, 9, complete=cut == 9)
    named = order[:cut]
    assert found == (named + [place for place in range(9) if place not in named] if cut else None)


@given(numbers=st.lists(st.integers(-3, 12), min_size=1))
def test_the_first_mention_counts_and_the_rest_keeps_its_order(numbers: list[int]) -> None:
    order, repairs = read_order(json.dumps({"ranking": numbers}), 9)
    known = [number - 1 for number in numbers if 1 <= number <= 9]
    named = list(dict.fromkeys(known))
    assert order == (named + [place for place in range(9) if place not in named] if named else None)
    if named:
        assert repairs.get("duplicate", 0) == len(known) - len(named)
        assert repairs.get("out_of_range", 0) == len(numbers) - len(known)
        assert repairs.get("missing", 0) == 9 - len(named)


@pytest.mark.parametrize(
    ("content", "order"),
    [
        ('<think>[3, 1] look good</think>{"ranking": [2, 1, 3]}', [1, 0, 2]),
        ('Documents [1, 2] match. {"ranking": [3, 1, 2]}', [2, 0, 1]),
        ('{"ranking": [3, 1, 2]} {"confidence": [0.9, 0.1]}', [2, 0, 1]),
        ('{"ranking": [1, 2, 3]} no, rather {"ranking": [3, 2, 1]}', [2, 1, 0]),
        ('{"ranking": [1, 2, 3]} no, rather {"order": [3, 2, 1]}', [2, 1, 0]),
        ('<think>maybe {"ranking": [1, 2, 3]}</think> {"results": [3, 2, 1]}', [2, 1, 0]),
        ('{"ranking": [3, 2, 1]} of {"documents": [1, 2, 3]}', [2, 1, 0]),
    ],
)
def test_a_ranking_counts_before_what_the_model_says_around_it(content: str, order: list[int]) -> None:
    assert read_order(content, 3)[0] == order
