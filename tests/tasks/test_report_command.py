"""`orchestrate report`, as a person types it, and its page in a real browser."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from evaluations import Evaluation, write_sweep

FAST = ["evaluate", "latency_queries=1", "measures=[nDCG@10,R@100]", "pipeline=bm25"]
GOOD, FAIR, POOR = [1] * 20, [1] * 14 + [2] * 6, [2] * 10 + [5] * 10


def folder_of(root: str) -> Path:
    (folder,) = Path(root).glob("*/*-evaluate-*")
    return folder


@pytest.mark.slow
def test_a_real_sweep_is_reported_as_page_markdown_and_csv(orchestrate: Callable, corpus: Path) -> None:
    sweep = orchestrate("-m", *FAST, f"corpus.path={corpus}", "pipeline.stages.bm25.top_k=1,10")
    assert sweep.code == 0, sweep.err
    folder = folder_of("multirun")
    done = orchestrate("report", str(folder))
    assert done.code == 0, done.err
    assert "Best of 2 by nDCG@10: row 1 (bm25.top_k=10)" in " ".join(done.out.split())
    for name in ("report.html", "report.md", "report.csv"):
        assert str(folder / name) in done.out
    with (folder / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    figures = [json.loads((folder / str(num) / "metrics.json").read_text()) for num in (0, 1)]
    assert [float(row["nDCG@10"]) for row in rows] == [of["metrics"]["nDCG@10"] for of in figures]
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "The optic nerve carries signals" in html, "texts come from the corpus that the job ranked"
    assert not list(Path("outputs").glob("*/*report*")), "a report makes no folder of its own"


@pytest.mark.slow
def test_texts_are_left_out_where_the_collection_has_gone(orchestrate: Callable, corpus: Path) -> None:
    assert orchestrate("-m", *FAST, f"corpus.path={corpus}", "pipeline.stages.bm25.top_k=1,10").code == 0
    shutil.rmtree(corpus)
    done = orchestrate("report", str(folder_of("multirun")), "format=json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert any(
        "Documents are shown by their ids alone: their collection cannot be opened" in gap for gap in told["gaps"]
    )
    assert set(told) == {"html", "markdown", "csv", "headline", "best", "gaps"}
    assert told["best"]["settings"] == {"bm25.top_k": "10"}
    assert Path(told["html"]).is_file()


def test_a_relative_collection_is_found_from_elsewhere(
    orchestrate: Callable, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(corpus, "docs")
    assert orchestrate("-m", *FAST, "corpus.path=docs", "pipeline.stages.bm25.top_k=1,10").code == 0
    folder = folder_of("multirun").absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = orchestrate("report", str(folder), "output=made/here")
    assert done.code == 0, done.err
    assert "The optic nerve carries signals" in Path("made/here/report.html").read_text(encoding="utf-8")
    assert not (folder / "report.html").exists()


def test_a_single_run_and_another_folder_are_compared(orchestrate: Callable, tmp_path: Path) -> None:
    Evaluation(GOOD, {"fused": POOR}).write(Path("one"), ["task=evaluate", "k=1"])
    write_sweep(Path("two"), {"k=1": Evaluation(FAIR), "k=2": Evaluation(POOR)})
    done = orchestrate("report", "one", "format=json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["best"]["row"] == "whole"
    done = orchestrate("report", "one", "compare=[two]", "measure=R@10", "reference=2", "format=json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["best"]["settings"]["folder"] == "one"
    assert "R@10" in json.loads(done.out)["headline"][0]
    twice = orchestrate("report", "two", "compare=[two/]", "format=json")
    assert json.loads(twice.out)["headline"][0].startswith("Best of 2"), "a folder given twice is one"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "task.folder: missing; expected the folder of an evaluation or a sweep"),
        (["nowhere"], "task.folder: nowhere: found nothing there; expected the folder of an evaluation"),
        (["failed"], "task.folder: failed: the one job failed and none left figures; the first: no"),
        (["good", "compare=[gone]"], "task.compare[0]: gone: found nothing there"),
        (["good", "compare=3"], "task.compare: found 3; expected a folder, or a list of them"),
        (["good", "measure=nDCG"], "task.measure: found 'nDCG'; measured were: RR@10, R@10."),
        (["good", "reference=9"], "task.reference: found '9'; rows whose queries are known: best, 0, 1."),
        (["good", "output=good/sweep.json"], "task.output: good/sweep.json: found a file; expected a folder"),
        (
            ["good", "output=good/sweep.json/below"],
            "task.output: good/sweep.json/below: cannot be written (Not a directory)",
        ),
        (["good", "format=trec"], "format: found trec; report ranks no documents. Choices: table, json"),
        (["good", "two"], "unexpected word 'two': report takes one argument, the folder of an evaluation or a sweep"),
    ],
)
def test_mistakes_are_told_with_what_was_expected(words: list[str], message: str, orchestrate: Callable) -> None:
    write_sweep(Path("good"), {"k=1": Evaluation(FAIR), "k=2": Evaluation(POOR)})
    write_sweep(Path("failed"), {"k=1": "no"})
    done = orchestrate("report", *words)
    assert done.code == 2, done.err
    assert message in " ".join(done.err.split())


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()


def test_the_page_fits_a_wide_and_a_narrow_window_sorts_and_switches(orchestrate: Callable, browser: Browser) -> None:
    stages = {"fused": POOR, "a_stage_with_a_rather_long_name": FAIR}
    made = {
        "model@models.reranker=ms_marco_minilm_l6 pipeline.stages.precise.top_k=3": Evaluation(
            GOOD, stages, 80.0, 0.002
        ),
        "model@models.reranker=ms_marco_minilm_l6 pipeline.stages.precise.top_k=10": Evaluation(
            FAIR, stages, 20.0, 0.001
        ),
        "model@models.reranker=bge pipeline.stages.precise.top_k=3": Evaluation(POOR, stages, 5.0),
        "model@models.reranker=bge pipeline.stages.precise.top_k=10": "it_broke_" * 40,
    }
    assert orchestrate("report", str(write_sweep(Path("sweep"), made))).code == 0
    for width, dark in ((1400, False), (390, True)):
        browser.open(Path("sweep/report.html"), width, dark=dark)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("getComputedStyle(document.body).backgroundColor") == (
            "rgb(20, 23, 29)" if dark else "rgb(255, 255, 255)"
        )
        order = "Array.from(document.querySelector('table.rows').tBodies[0].rows).map(row => row.cells[0].textContent)"
        heads = "Array.from(document.querySelectorAll('table.rows thead th'))"
        browser.run(f"{heads}.find(head => head.textContent === 'p95 ms').querySelector('button').click()")
        assert browser.run(order) == ["0", "1", "2", "3"], "dearest first, the failed one last"
        browser.run(f"{heads}.find(head => head.textContent === 'p95 ms').querySelector('button').click()")
        assert browser.run(order) == ["2", "1", "0", "3"]
        assert browser.run("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "ascending"
        shown = "Array.from(document.querySelectorAll('figure')).filter(one => !one.hidden).map(one => one.id)"
        assert browser.run(shown) == ["front-0-0"]
        browser.run(
            "const x = document.getElementById('front-x'); x.value = '3'; x.dispatchEvent(new Event('change')); 0"
        )
        assert browser.run(shown) == ["front-0-3"]
        pairs = "Array.from(document.querySelectorAll('.pair')).filter(one => !one.hidden).map(one => one.id)"
        choice = "document.querySelector('[data-shows=pair]')"
        browser.run(f"{choice}.value = 'pair2'; {choice}.dispatchEvent(new Event('change')); 0")
        assert browser.run(pairs) == ["pair2"]
    assert browser.errors == []
