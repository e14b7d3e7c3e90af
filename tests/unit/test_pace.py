"""What is learned of a stage's time: from little, through noise, and kept between processes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from orchestrator.running import pace as pace_module
from orchestrator.running.pace import Line, Pace, Paces, machine, pace_key, sizes
from orchestrator.stack.graph import Node, StageGraph, StageSpec
from orchestrator.stack.passages import Passages
from orchestrator.types import Document, Query


class Reads:
    score_kind = "logit"
    max_length_tokens = 100
    model_id = "m"

    def score(self, pairs: object, call: object) -> object:
        return np.empty(0)


class Finds:
    score_kind = "bm25"

    def retrieve(self, query: object, top_k: int, call: object) -> list[tuple[str, float]]:
        return []


def node(**keys: object) -> Node:
    graph = StageGraph.of([StageSpec("bm25", Finds(), 10), StageSpec("precise", Reads(), 5)])  # type: ignore[arg-type]
    return replace(graph.result, **keys)  # type: ignore[arg-type]


def taught(*pairs: tuple[float, float]) -> Pace:
    pace = Pace()
    for units, seconds in pairs:
        pace.observe(units, seconds)
    return pace


def test_nothing_known_is_no_time() -> None:
    pace = Pace()
    assert not pace.is_known
    assert (pace.seconds(100), pace.careful_seconds(100), pace.stage_seconds(100)) == (0.0, 0.0, 0.0)


def test_a_line_is_found_through_points_of_two_sizes() -> None:
    line = Line.through([10, 20, 40], [0.2 + 10 * 0.01, 0.2 + 20 * 0.01, 0.2 + 40 * 0.01])
    assert line.fixed == pytest.approx(0.2)
    assert line.per_unit == pytest.approx(0.01)
    assert line.spread == pytest.approx(1.0)


def test_a_quarter_of_wild_observations_changes_little() -> None:
    random = np.random.default_rng(7)
    units = random.uniform(50, 500, 64)
    seconds = 0.01 + 0.002 * units
    seconds[:16] *= random.uniform(3, 20, 16)  # another process had the processor
    assert Line.through(units.tolist(), seconds.tolist()).at(300) == pytest.approx(0.01 + 0.002 * 300, rel=0.15)


def test_one_size_alone_is_taken_to_grow_with_the_size() -> None:
    assert taught((8, 0.08), (8, 0.08)).seconds(100) == pytest.approx(1.0)


def test_slow_observations_make_the_careful_figure_larger() -> None:
    pace = taught(*[(100, 0.1)] * 8, (100, 0.3), (100, 0.3))
    assert pace.careful_seconds(100) == pytest.approx(0.3)
    assert pace.seconds(100) == pytest.approx(0.1)


def test_a_machine_that_has_become_slower_is_followed_within_eight_observations() -> None:
    pace = taught(*[(float(size), size * 0.001) for size in range(10, 50)])
    for size in range(10, 18):
        pace.observe(size, size * 0.003)
    assert pace.seconds(20) == pytest.approx(20 * 0.003, rel=0.25)


def test_work_that_was_stopped_teaches_that_it_takes_longer_and_nothing_else() -> None:
    pace = taught((100, 0.1), (100, 0.1))
    pace.observe_at_least(100, 0.05)
    assert pace.seconds(100) == pytest.approx(0.1)
    for _ in range(8):
        pace.observe_at_least(100, 0.4)
    assert pace.seconds(100) >= 0.4


def test_a_stage_that_was_left_out_long_enough_is_tried_again() -> None:
    pace = taught((1, 2.0))
    for _ in range(20):
        pace.was_left_out()
    assert pace.seconds(1) == pytest.approx(2.0 * 0.9**20)
    pace.observe(1, 2.0)
    assert pace.seconds(1) == pytest.approx(2.0)


def test_a_stage_takes_its_scoring_and_what_is_around_it() -> None:
    pace = taught((100, 0.1), (200, 0.2))
    pace.observe_stage(2, 100.0, 0.03)  # two documents of 50
    assert pace.stage_seconds(10) == pytest.approx(0.03 + 10 * 50 * 0.001)


def test_paces_are_kept_between_processes(tmp_path: Path) -> None:
    first = Paces(tmp_path)
    first.of("precise").observe(100, 0.5)
    first.of("precise").observe_stage(1, 100, 0.01)
    first.save()
    again = Paces(tmp_path).of("precise")
    assert again.seconds(100) == pytest.approx(0.5)
    assert again.stage_seconds(1) == pytest.approx(0.51)


def test_processes_keep_each_others_stages(tmp_path: Path) -> None:
    one, other = Paces(tmp_path), Paces(tmp_path)
    one.of("a").observe(1, 1.0)
    other.of("b").observe(1, 2.0)
    one.save()
    other.save()
    both = Paces(tmp_path)
    assert both.of("a").seconds(1) == pytest.approx(1.0)
    assert both.of("b").seconds(1) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "stages": {"a": 3}}', "\x00\xff", '{"format": 99}']
)
def test_a_file_that_cannot_be_read_is_begun_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cost" / f"{machine()}.json"
    path.parent.mkdir()
    path.write_bytes(content.encode("latin-1"))
    with capture_logs():
        paces = Paces(tmp_path)
        assert not paces.of("a").is_known
        paces.of("a").observe(1, 1.0)
        paces.save()
    assert Paces(tmp_path).of("a").is_known


def test_wrong_numbers_in_the_file_are_left_out() -> None:
    pace = Pace({"work": [[1, 2], [1], "x", [1, -5], [float("nan"), 1]], "around": [0.5, "y"], "sizes": None})
    assert pace.as_json() == {"work": [[1, 2]], "later": [], "around": [0.5], "sizes": []}


def test_a_folder_that_cannot_be_written_is_only_a_warning(tmp_path: Path) -> None:
    (tmp_path / "cost").write_text("a file where a folder should be")
    with capture_logs() as logs:
        paces = Paces(tmp_path)
        paces.of("a").observe(1, 1.0)
        paces.save()
    assert [line["event"] for line in logs][-1] == "pace.not_kept"


def test_stages_that_nobody_asks_any_more_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "_MOST_STAGES", 2)
    for key in ("a", "b", "a", "c"):
        paces = Paces(tmp_path)
        paces.of(key).observe(1, 1.0)
        paces.save()
    kept = Paces(tmp_path)
    assert {key: kept.of(key).is_known for key in "abc"} == {"a": True, "b": False, "c": True}


def test_another_model_has_another_pace() -> None:
    same, other = node(), node()
    assert pace_key(same) == pace_key(other)
    other.stage.model_id = "another"  # type: ignore[union-attr, misc]
    assert pace_key(same) != pace_key(other)


def test_a_size_is_in_rough_tokens_up_to_what_the_stage_reads() -> None:
    query, short, long = Query("q", "x" * 40), Document("a", "y" * 80, "z" * 40), Document("b", "y" * 4000)
    assert sizes(node(), [(query, short), (query, long)]) == [(40 + 80 + 40) / 4, 100.0]


def test_windows_are_read_up_to_their_number() -> None:
    windows = Passages(how="windows", size=50, max_windows=3)
    assert sizes(node(passages=windows), [(Query("q", ""), Document("b", "y" * 4000))]) == [50.0 * 3]


def test_a_stage_that_reads_no_text_counts_documents() -> None:
    vectors = node(needs=frozenset({"vectors"}))
    assert sizes(vectors, [(Query("q", "x" * 40), Document("a", "y" * 80))]) == [1.0]


def test_a_doubt_ends_when_the_stage_was_tried_and_was_no_faster() -> None:
    pace = taught((1, 2.0))
    for _ in range(20):
        pace.was_left_out()
    pace.observe_at_least(1, 0.5)  # stopped after a quarter of what it takes
    assert pace.seconds(1) == pytest.approx(2.0)


def test_a_doubt_is_about_whether_to_begin_and_not_about_how_much() -> None:
    pace = taught((1, 2.0))
    pace.was_left_out()
    assert pace.seconds(1) == pytest.approx(2.0 * 0.9)
    assert pace.seconds(1, doubted=False) == pace.stage_seconds(1) == pytest.approx(2.0)


def test_pieces_after_the_first_are_learned_apart_and_do_not_drift() -> None:
    pace = Pace()
    for _ in range(40):  # a question of 0.1 s, then two pieces that do not read it again
        pace.observe(10, 0.1 + 10 * 0.01)
        pace.observe(30, 0.1 + 30 * 0.01)
        for size in (20, 40):
            pace.observe(size, 0.02 + size * 0.01, later=True)
    assert pace.seconds(20) == pytest.approx(0.1 + 20 * 0.01)
    assert pace.seconds(20, later=True) == pytest.approx(0.02 + 20 * 0.01)


def test_a_later_piece_is_expected_to_take_what_grows_where_none_was_seen() -> None:
    pace = taught((10, 0.1 + 10 * 0.01), (30, 0.1 + 30 * 0.01))
    assert pace.seconds(20, later=True) == pytest.approx(20 * 0.01)


def test_sizes_that_are_nearly_equal_do_not_tell_what_one_document_costs() -> None:
    noise = np.random.default_rng(0)
    sizes_ = noise.uniform(0.9, 1.1, 64) * 10_000
    line = Line.through(list(sizes_), list(noise.uniform(3.0, 6.0, 64)))
    assert line.fixed == 0.0
    assert line.at(100) == pytest.approx(4.5 * 100 / 10_000, rel=0.2)


def test_a_stage_that_was_thought_fifty_times_too_slow_is_tried_again() -> None:
    pace, left_out = taught((1, 50.0)), 0
    while pace.seconds(1) > 1.0:
        pace.was_left_out()
        left_out += 1
    assert left_out == math.ceil(math.log(1 / 50) / math.log(0.9))
