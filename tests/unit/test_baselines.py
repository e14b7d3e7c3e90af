"""Runs to compare with: by name, by folder, by file; what they lack; chunks and their documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from answers import Finds, Held

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.errors import ConfigError, DataError
from orchestrator.evaluation.baselines import (
    KeptRuns,
    check_name,
    judge_baseline,
    parents_or_selves,
    read_baselines,
)
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.quality import Quality, measure_quality
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.trec import run_text
from orchestrator.types import Query

MEASURES = Measures(["RR@10"])
QUERIES = [Query("q1", "one"), Query("q 2", "two"), Query("q3", "three")]
QRELS = {"q1": {"a": 1}, "q 2": {"b c": 1}, "q3": {"a": 1}}
RUN = {"q1": ["x", "a"], "q 2": ["b c"]}


@pytest.fixture
def quality() -> Quality:
    runner = Runner(StageGraph.of([StageSpec("bm25", Finds("a", "b c"), 2)]), Held())  # type: ignore[arg-type]
    return measure_quality(runner.run, QUERIES, QRELS, MEASURES)


@pytest.fixture
def kept(tmp_path: Path) -> KeptRuns:
    return KeptRuns(tmp_path / "root", "tiny-1")


def written(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or run_text(RUN))
    return path


def test_a_kept_run_is_found_by_its_name_and_replaced_with_a_word(kept: KeptRuns) -> None:
    with structlog.testing.capture_logs() as logs:
        kept.keep("lexical", {"run.trec": run_text(RUN)})
        kept.keep("lexical", {"run.trec": run_text({"q1": ["a"]})})
    assert [entry["event"] for entry in logs] == ["run.kept", "run.replaced"]
    assert kept.names == ["lexical"]
    (baseline,) = read_baselines(["lexical"], kept, "hash")
    assert dict(baseline.run) == {"q1": [("a", 1.0)]}
    assert (baseline.name, kept.find("other"), kept.find("../tiny-1/lexical")) == ("lexical", None, None)


def test_a_run_that_cannot_be_written_leaves_the_old_one(kept: KeptRuns) -> None:
    kept.keep("lexical", {"run.trec": run_text(RUN)})
    with pytest.raises(FileNotFoundError):
        kept.keep("lexical", {"run.trec": run_text({"q1": ["z"]}), "no/such/folder": ""})
    (baseline,) = read_baselines(["lexical"], kept, "hash")
    assert set(baseline.run) == {"q1", "q%202"}


def test_folders_and_files_are_named_after_themselves(kept: KeptRuns, tmp_path: Path) -> None:
    folder, file = written(tmp_path / "earlier" / "run.trec").parent, written(tmp_path / "runs" / "theirs.txt")
    twin = written(tmp_path / "other" / "earlier" / "run.trec").parent
    found = read_baselines([str(folder), str(file), str(twin)], kept, "hash")
    assert [one.name for one in found] == ["earlier", "theirs.txt", str(twin)]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lexicl", "task.baseline: 'lexicl' is neither a kept run nor a folder or file that is there; runs kept of "
                   "this corpus: dense, lexical (save_as=NAME keeps one). Did you mean 'lexical'?"),
        ("empty", "holds no run.trec; expected the folder of an evaluation"),
    ],
)  # fmt: skip
def test_a_baseline_that_is_not_there_gets_the_choices(
    word: str, message: str, kept: KeptRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("lexical", "dense"):
        kept.keep(name, {"run.trec": run_text(RUN)})
    with pytest.raises(ConfigError) as raised:
        read_baselines([word], kept, "hash")
    assert message in str(raised.value)


def test_a_file_that_is_no_run_is_named_with_its_line(kept: KeptRuns, tmp_path: Path) -> None:
    path = written(tmp_path / "qrels.tsv", "q1\ta\t1\n")
    with pytest.raises(DataError, match=r"qrels\.tsv:1: found 3 columns; expected 6"):
        read_baselines([str(path)], kept, "hash")


def test_a_query_that_a_run_lacks_counts_as_zero_and_is_told_of(quality: Quality, kept: KeptRuns) -> None:
    kept.keep("lexical", {"run.trec": run_text(RUN)})
    (baseline,) = read_baselines(["lexical"], kept, "hash")
    with structlog.testing.capture_logs() as logs:
        judged = judge_baseline(baseline, quality, MEASURES, depth=100)
    assert {query: values["RR@10"] for query, values in judged.ranked.per_query.items()} == {
        "q1": 1 / 2,
        "q 2": 1.0,
        "q3": 0.0,
    }
    assert judged.ranked.means["RR@10"] == pytest.approx((1 / 2 + 1) / 3)
    assert judged.n_missing == 1
    assert [(entry["event"], entry["missing"], entry["of"]) for entry in logs] == [("baseline.queries", 1, 3)]


def test_a_run_is_judged_to_the_same_depth(quality: Quality, kept: KeptRuns) -> None:
    kept.keep("lexical", {"run.trec": run_text(RUN)})
    (baseline,) = read_baselines(["lexical"], kept, "hash")
    assert judge_baseline(baseline, quality, MEASURES, depth=1).ranked.per_query["q1"]["RR@10"] == 0.0


def test_a_run_of_other_queries_is_refused(quality: Quality, kept: KeptRuns, tmp_path: Path) -> None:
    path = written(tmp_path / "other.trec", run_text({"z1": ["a"], "z2": ["a"]}))
    (baseline,) = read_baselines([str(path)], kept, "hash")
    with pytest.raises(ConfigError, match=r"none of the 3 judged queries; found z1, z2, \.\.\.; expected q1, q 2, q3"):
        judge_baseline(baseline, quality, MEASURES, depth=100)


def test_a_run_over_other_documents_is_warned_of(kept: KeptRuns) -> None:
    figures = json.dumps({"corpus": {"name": "old", "content_hash": "abc", "split": "test"}})
    kept.keep("lexical", {"run.trec": run_text(RUN), "metrics.json": figures})
    with structlog.testing.capture_logs() as logs:
        read_baselines(["lexical"], kept, "abc")
        assert logs == []
        read_baselines(["lexical"], kept, "def")
    assert [entry["event"] for entry in logs if "baseline" in entry["event"]] == ["baseline.other_documents"]


def test_figures_beside_a_run_that_are_of_something_else_are_passed_over(kept: KeptRuns) -> None:
    kept.keep("lexical", {"run.trec": run_text(RUN), "metrics.json": '{"corpus": "old"}'})
    with structlog.testing.capture_logs() as logs:
        (baseline,) = read_baselines(["lexical"], kept, "abc")
    assert (baseline.name, logs) == ("lexical", [])


def test_chunks_of_a_run_count_as_their_documents_and_documents_as_themselves(
    write_corpus: Callable[..., Path], opened: Callable[..., DiskCorpus]
) -> None:
    rows = [{"_id": f"{doc}#{n}", "text": "x", "parent_id": doc} for doc in ("a", "b") for n in (1, 2)]
    corpus = opened(write_corpus(rows))
    assert parents_or_selves(corpus)(["b#2", "a", "b#1", "elsewhere", "a#1"]) == ["b", "a", "elsewhere"]


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "x" * 61, True, ["a"]])
def test_a_name_that_no_folder_can_have_is_refused(name: object) -> None:
    with pytest.raises(ConfigError, match=r"task\.save_as: found .*; expected a name of at most 60"):
        check_name(name)


def test_a_name_may_have_any_letters() -> None:
    assert check_name("基线_v1.2-b") == "基线_v1.2-b"
    assert check_name(2024) == "2024"
    assert check_name(None) is None
