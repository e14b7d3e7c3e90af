"""The report as page, Markdown and CSV: geometry of each picture, escaping, and that everything is told."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from evaluations import Evaluation, write_sweep
from pages import Reader

from orchestrator.report.study.bars import HEIGHT as BARS_HEIGHT
from orchestrator.report.study.bars import difference_bars, spread_bar
from orchestrator.report.study.csv_file import csv_text
from orchestrator.report.study.markdown import markdown, safe
from orchestrator.report.study.page import page
from orchestrator.report.study.scatter import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Box, free_place, nice_step, scatter
from orchestrator.report.study.stack import stack
from orchestrator.report.study.stage_costs import stage_costs
from orchestrator.study.entry import Entry
from orchestrator.study.figures import Figures
from orchestrator.study.folders import read_folders
from orchestrator.study.front import Point
from orchestrator.study.study import Study, is_comparable, study_of, with_queries

GOOD, FAIR, POOR = [1] * 20, [1] * 14 + [2] * 6, [2] * 10 + [5] * 10
NASTY = "<script>alert('1')</script>\"&"


def studied(folder: Path) -> Study:
    return with_queries(study_of(read_folders({"task.folder": folder})), None)


def row(name: str, quality: float = 0.5, label: str = "") -> Entry:
    return Entry(name, "run", Path(), words=label, figures=Figures({"m": quality}))


def point(name: str, cost: float, quality: float, label: str = "") -> Point:
    return Point(row(name, quality, label), cost, quality)


def drawn(svg: str, css: str) -> list[ElementTree.Element]:
    return [part for part in ElementTree.fromstring(svg).iter() if css in part.get("class", "").split()]


def numbers(part: ElementTree.Element, *names: str) -> list[float]:
    return [float(part.get(name, "nan").rstrip("%")) for name in names]


# --- the scatter


def test_better_stands_higher_and_cheaper_to_the_left() -> None:
    svg = scatter([point("a", 10, 0.5), point("b", 30, 0.8), point("c", 20, 0.4)], "p95 ms", "nDCG@10")
    places = {dot.find("title").text[:5]: numbers(dot, "cx", "cy") for dot in drawn(svg, "dot")}  # type: ignore[union-attr, index]
    (ax, ay), (bx, by), (cx, cy) = (places[f"{name}: 0."[:5]] for name in "abc")
    assert ax < cx < bx
    assert by < ay < cy
    left, width = LEFT, WIDTH - LEFT - RIGHT
    assert ax == pytest.approx(left + width * 10 / (30 * 1.06), abs=0.1), "from 0, as costs are"
    assert [dot.find("title").text[0] for dot in drawn(svg, "on") if dot.tag == "circle"] == ["a", "b"]  # type: ignore[union-attr, index]


def test_costs_of_very_different_size_stand_on_a_logarithmic_scale() -> None:
    costs = [1.0, 10.0, 100.0]
    svg = scatter([point(str(n), cost, 0.5 + n / 10) for n, cost in enumerate(costs)], "p95 ms", "m")
    first, second, third = sorted(numbers(dot, "cx")[0] for dot in drawn(svg, "dot"))
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert "logarithmic" in svg


def test_labels_never_cover_each_other_nor_leave_the_picture() -> None:
    points = [
        point(str(n), 10 + (n * 37 % 17) / 3, 0.5 + (n * 11 % 13) / 200, f"fused=rrf top_k={n}") for n in range(40)
    ]
    texts = drawn(scatter(points, "p95 ms", "m"), "label")
    boxes = []
    for text in texts:
        x, y = numbers(text, "x", "y")
        box = Box(x, y - 11, len(text.text or "") * (7.4 if "on" in text.get("class", "") else 6.6), 14)
        assert box.x >= LEFT
        assert box.x + box.width <= WIDTH
        assert 0 <= box.y <= HEIGHT - BOTTOM
        assert not any(box.overlaps(other) for other in boxes)
        boxes.append(box)
    assert len(boxes) > 10


def test_no_place_is_found_where_all_are_taken() -> None:
    assert free_place("abc", 300, 200, []) == Box(309, 193, 3 * 6.6, 14)
    assert free_place("abc", 300, 200, [Box(0, 0, WIDTH, HEIGHT)]) is None


@pytest.mark.parametrize(
    ("at_least", "step"), [(0.8, 1), (1.0, 1), (1.1, 2), (2.2, 2.5), (3, 5), (6, 10), (0.03, 0.05)]
)
def test_steps_of_an_axis_are_round(at_least: float, step: float) -> None:
    assert nice_step(at_least) == pytest.approx(step)


def test_one_point_or_equal_ones_can_be_drawn_and_none_is_nothing() -> None:
    assert scatter([], "x", "y") == ""
    for points in ([point("a", 5, 0.5)], [point("a", 5, 0.5), point("b", 5, 0.5)], [point("a", 0, 0.0)]):
        svg = scatter(points, "x", "y")
        assert "nan" not in svg
        assert len(drawn(svg, "dot")) == len(points)


def test_the_front_is_a_staircase_through_its_points() -> None:
    points = [point("a", 10, 0.5), point("b", 30, 0.8)]
    svg = scatter(points, "x", "y")
    (line,) = drawn(svg, "front")
    places = {dot.find("title").text[0]: numbers(dot, "cx", "cy") for dot in drawn(svg, "dot")}  # type: ignore[union-attr, index]
    steps = re.findall(r"([MVH])([\d.]+)(?: ([\d.]+))?", line.get("d", ""))
    assert [float(value) for letter, value, _ in steps if letter == "V"] == [places["a"][1], places["b"][1]]
    assert float(steps[0][1]) == places["a"][0]
    assert float(steps[2][1]) == places["b"][0]


# --- bars


def test_parts_of_a_bar_are_as_long_as_their_share_and_follow_each_other() -> None:
    svg = stack({"bm25": 1.0, "dense": 3.0}, 8.0, {"bm25": 0, "dense": 1}, "ms")
    first, second = drawn(svg, "part")
    assert numbers(first, "x", "width") == [0.0, 100 * 1 / 8]
    assert numbers(second, "x", "width") == [100 * 1 / 8, 100 * 3 / 8]
    assert first.get("style") != second.get("style")
    assert [numbers(part, "width")[0] for part in drawn(stack({"a": 0.0}, 0.0, {"a": 0}, "ms"), "part")] == [0.0]


def test_stages_have_one_colour_in_all_costs_and_rows_that_take_none_are_left_out(tmp_path: Path) -> None:
    made = {"k=1": Evaluation(GOOD, {"fused": POOR}, tokens=50.0), "k=2": Evaluation(FAIR, {"fused": POOR})}
    text = stage_costs(studied(write_sweep(tmp_path / "sweep", made)))
    times, tokens = re.findall(r"<table class=\"stages\">.*?</table>", text, re.DOTALL)
    assert re.findall(r"<th scope=\"row\">(.*?)</th>", times) == ["0 1", "1 2"]
    assert re.findall(r"<th scope=\"row\">(.*?)</th>", tokens) == ["0 1"]
    assert "rows that take none are left out" in tokens
    (colour,) = set(re.findall(r"style=\"(--h:\d+)\"[^>]*><title>last", text))
    assert f'style="{colour}"></span>last' in text
    assert text.count('class="key"') == 1


def test_a_gain_stands_above_the_line_and_a_loss_below_it_as_tall_as_it_is() -> None:
    svg = difference_bars([0.5, 0.25, 0.0, -0.5])
    (gain,), (loss,) = drawn(svg, "gain"), drawn(svg, "loss")
    middle = BARS_HEIGHT / 2
    assert re.findall(r"M([\d.]+) ([\d.]+)v(-?[\d.]+)", gain.get("d", "")) == [
        ("0.1", f"{middle:.1f}", f"{-middle:.1f}"),
        ("1.1", f"{middle:.1f}", f"{-middle / 2:.1f}"),
    ]
    assert re.findall(r"M([\d.]+) ([\d.]+)v(-?[\d.]+)", loss.get("d", "")) == [
        ("3.1", f"{middle:.1f}", f"{middle:.1f}")
    ]
    assert "2 queries gain, 1 stay, 1 lose" in svg
    assert drawn(difference_bars([]), "zero")


def test_a_spread_reaches_from_the_least_to_the_greatest() -> None:
    (reach,), (dot,) = (
        drawn(spread_bar(0.2, 0.5, 0.6, (0.0, 1.0)), "reach"),
        drawn(spread_bar(0.2, 0.5, 0.6, (0.0, 1.0)), "mean"),
    )
    assert numbers(reach, "x1", "x2") == pytest.approx([2 + 96 * 0.2, 2 + 96 * 0.6])
    assert numbers(dot, "cx") == pytest.approx([2 + 96 * 0.5])
    assert "50.00%" in spread_bar(0.5, 0.5, 0.5, (0.5, 0.5))


# --- the page


def jobs() -> dict[str, Evaluation | str]:
    stages = {"fused": POOR, "shortlist": FAIR}
    return {
        "fused=rrf k=1": Evaluation(GOOD, stages, p95=80.0, usd=0.002, tokens=100.0),
        "fused=rrf k=2": Evaluation(FAIR, stages, p95=20.0, usd=0.001),
        "fused=weighted k=1": Evaluation(POOR, stages, p95=5.0),
        "fused=weighted k=2": f"no model {NASTY}",
    }


def test_the_page_is_whole_fetches_nothing_and_holds_every_part(tmp_path: Path) -> None:
    text = page(studied(write_sweep(tmp_path / "sweep", jobs())), "Report of a sweep")
    read = Reader(text)
    assert read.open == []
    assert read.fetched == []
    assert "default-src 'none'" in text
    words = " ".join(" ".join(read.texts).split())
    for head in (
        "All rows",
        "Quality against cost",
        "What each swept key did",
        "What each stage takes",
        "Query by query",
    ):
        assert head in words
    assert "best possible order" in words
    assert "before reranking: fused" in words
    assert "what is <0>?" not in text
    assert "what is <14>?" in words
    assert "✓ relevant, grade 2" in words
    assert read.tags.count("caption") == read.tags.count("table")


def test_what_comes_from_users_is_escaped_wherever_it_stands(tmp_path: Path) -> None:
    made = {f"k={NASTY.replace(' ', '_')}": Evaluation(GOOD, {NASTY.replace("/", "_"): POOR}), "k=2": Evaluation(POOR)}
    study = studied(write_sweep(tmp_path / "sweep", {**made, "k=3": f"it broke {NASTY}"}))
    text = page(study, NASTY)
    assert "<script>alert" not in text
    assert Reader(text).tags.count("script") == 1
    told = markdown(study, NASTY)
    assert "<script>" not in re.sub(r"\\[<>]", "", told)


def test_a_large_sweep_stays_small(tmp_path: Path) -> None:
    places = [[(n * query) % 9 + 1 for query in range(100)] for n in range(1, 17)]
    made = {f"a={n % 4} b={n // 4}": Evaluation(of, {"fused": of}, p95=5.0 + n) for n, of in enumerate(places)}
    text = page(studied(write_sweep(tmp_path / "sweep", made)), "large")
    assert len(text.encode()) < 500_000
    assert Reader(text).open == []


def test_an_older_or_untimed_sweep_leaves_out_what_it_cannot_know(tmp_path: Path) -> None:
    made = {f"k={n}": Evaluation([n] * 20, p95=None, is_old=True) for n in (1, 2)}
    text = page(studied(write_sweep(tmp_path / "sweep", made)), "old")
    assert "What this report cannot tell" in text
    assert "Nothing was timed" in text
    assert "p95 ms" not in text
    assert "so that there is no front" in text
    assert 'class="scatter"' not in text


def test_a_single_run_shows_its_stages_and_no_front(tmp_path: Path) -> None:
    study = studied(Evaluation(GOOD, {"fused": POOR, "shortlist": FAIR}).write(tmp_path / "run"))
    text = page(study, "one run")
    assert Reader(text).open == []
    assert "Quality against cost" not in text
    assert "one run, 2 stages beside it" in text
    assert text.count('class="pair"') == 3


# --- Markdown and CSV


def test_markdown_has_the_headline_the_table_the_front_and_the_effects(tmp_path: Path) -> None:
    text = markdown(studied(write_sweep(tmp_path / "sweep", jobs())), "Report")
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("| row"))
    rows = [line for line in lines[lines.index(head) + 2 :] if line.startswith("|")][:6]
    assert [line.split("|")[1].strip() for line in rows] == ["0 ★", "1", "2", "3", "null", "oracle"]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == head.count("|") for line in rows)
    assert "## Front of RR@10 against p95 ms" in lines
    assert "- row 2 (fused=weighted k=1): 0.3500 at 5" in lines
    assert "### fused" in lines
    assert any(line.startswith("- **Take row 0") for line in lines)
    assert not re.search(r"#\d", text), "a pull request would make a link of it"


def test_markdown_shows_a_text_as_it_stands() -> None:
    assert safe("a|b\n`c` <d> *e* [f]_g") == r"a\|b \`c\` \<d\> \*e\* \[f\]\_g"


def test_csv_has_every_figure_in_full_precision(tmp_path: Path) -> None:
    study = studied(write_sweep(tmp_path / "sweep", jobs()))
    rows = list(csv.DictReader(io.StringIO(csv_text(study))))
    assert [line["row"] for line in rows] == ["0", "1", "2", "3"]
    first, second, third, failed = rows
    assert float(second["RR@10"]) == study.rows[1].mean("RR@10") == pytest.approx((14 + 6 / 2) / 20)
    assert math.isclose(float(first["RR@10 low"]), 0.95)
    assert float(first["null RR@10"]) == pytest.approx((10 / 2 + 10 / 5) / 20)
    assert [line["on the front by p95"] for line in rows] == ["1", "1", "1", "0"]
    assert float(third["RR@10 beside 0: difference"]) == pytest.approx(0.35 - 1)
    assert third["RR@10 beside 0: won"] == "0"
    assert float(first["last usd"]) == 0.002
    assert (failed["status"], failed["RR@10"]) == ("failed", "")
    assert failed["reason"] == f"no model {NASTY}"
    assert {line["fused"] for line in rows} == {"rrf", "weighted"}


def test_csv_compares_the_rows_once_and_not_once_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {f"k={n}": Evaluation([n % 9 + 1] * 20, p95=5.0 + n) for n in range(12)}
    study = studied(write_sweep(tmp_path / "sweep", made))
    calls: list[Entry] = []

    def counted(one: Entry, other: Entry) -> bool:
        calls.append(other)
        return is_comparable(one, other)

    monkeypatch.setattr("orchestrator.study.study.is_comparable", counted)
    csv_text(study)
    assert len(calls) == len(study.rows)
