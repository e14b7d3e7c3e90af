"""`orchestrate evaluate`, as a person types it: its folder, baselines, folds, the table, measures with parentheses."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import ir_measures
import pytest
import pytrec_eval

from orchestrator.learned.record import write_record
from orchestrator.learned.trained import query_hashes
from orchestrator.types import Query

LEXICAL = ["pipeline=lexical", "fusion@pipeline.stages.fused.use=rrf", "corpus.language=en"]
PRECISE = [
    "+rerank@pipeline.stages.precise.use=null",
    "+pipeline.stages.precise.top_k=2",
    "+pipeline.stages.precise.inputs=[fused]",
]
RERANKED = [*LEXICAL, *PRECISE]
QUICK = ["evaluate", "latency_queries=0"]
TREES = ["learner.rounds=40", "learner.early_stopping_rounds=15", "learner.learning_rate=0.3", "learner.max_depth=3"]


@pytest.fixture
def judged(write_judged: Callable[..., Path]) -> list[str]:
    return [f"corpus.path={write_judged()}", "corpus.split=test"]


def folder_of(number: int = -1) -> Path:
    return sorted(Path("outputs").glob("*/*-evaluate-*"), key=lambda path: path.stat().st_mtime_ns)[number]


def plain(text: str) -> str:
    return " ".join(re.sub(r"\x1b\[\d*m", "", text).split())


# --- the folder


def test_the_folder_holds_what_reports_and_ir_measures_read(orchestrate: Callable, judged: list[str]) -> None:
    done = orchestrate("evaluate", "latency_queries=2", *RERANKED, *judged, "format=json")
    assert done.code == 0, done.err
    folder = folder_of()
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures == json.loads(done.out)
    has_all_that_reports_need(figures)
    runs = {"served": figures["served"], "precise": figures["metrics"], **figures["baselines"]}
    assert {path.stem for path in (folder / "runs").iterdir()} == set(runs)
    assert set(runs) == {"served", "precise", "bm25", "pairs", "fused"}
    for name, means in runs.items():
        assert by_ir_measures(folder, f"runs/{name}.trec", list(means)) == pytest.approx(means, abs=1e-6), name
    with (folder / "qrels.trec").open() as qrels, (folder / "run.trec").open() as run:
        judge = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {"map"})
        values = [row["map"] for row in judge.evaluate(pytrec_eval.parse_run(run)).values()]
    assert sum(values) / len(values) == pytest.approx(figures["metrics"]["AP"], abs=1e-6)
    whole, last = ((folder / name).read_text().splitlines() for name in ("run.trec", "runs/precise.trec"))
    assert [line.split()[:5] for line in whole] == [line.split()[:5] for line in last]
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    assert queries[0] == {"query_id": "q40", "text": "tell me about zeta40x"}
    assert [query["query_id"] for query in queries] == list(json.loads((folder / "per_query.json").read_text()))


def by_ir_measures(folder: Path, run: str, names: list[str]) -> dict[str, float]:
    qrels, found = ir_measures.read_trec_qrels(str(folder / "qrels.trec")), ir_measures.read_trec_run(str(folder / run))
    means = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in names], qrels, found)
    return {str(measure): value for measure, value in means.items()}


def has_all_that_reports_need(figures: dict) -> None:
    assert set(figures["intervals"]) == set(figures["oracle"]) == set(figures["metrics"])
    assert all(low <= figures["metrics"][name] <= high for name, (low, high) in figures["intervals"].items())
    assert figures["null"] == {"stage": "fused", "metrics": figures["baselines"]["fused"]}
    assert set(figures["unjudged"]) == {"10"}
    best = max(("bm25", "pairs"), key=lambda name: figures["baselines"][name]["nDCG@10"])
    assert [(one["stage"], one["against"], one["kind"]) for one in figures["comparisons"]] == [
        ("fused", best, "stage"),
        ("precise", "fused", "stage"),
    ]
    expected = {"measure", "difference", "interval", "wins", "ties", "losses", "p_t", "p_randomization", "p_holm"}
    assert all(set(one) - {"stage", "against", "kind"} == expected for one in figures["comparisons"])
    assert any(line.startswith("precise does not earn its place: nDCG@10 ") for line in figures["words"])
    assert (figures["tokens_per_query"], figures["cost_usd_per_query"], figures["cost_usd"]) == (0, 0, 0)
    assert set(figures["stages"]) == {"bm25", "pairs", "fused", "precise"}
    assert {name: figures["corpus"][name] for name in ("name", "split")} == {"name": "judged", "split": "test"}
    assert figures["folds"] is None


# --- baselines


def test_a_run_kept_by_name_is_compared_with(orchestrate: Callable, judged: list[str]) -> None:
    assert orchestrate(*QUICK, "pipeline=bm25", *judged, "save_as=words").code == 0
    before = json.loads((folder_of() / "metrics.json").read_text())
    done = orchestrate(*QUICK, *LEXICAL, *judged, "baseline=words", "format=json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert figures["against"]["words"]["metrics"] == before["metrics"]
    first = figures["comparisons"][0]
    assert (first["against"], first["kind"], first["stage"]) == ("words", "baseline", "fused")
    assert first["difference"] == pytest.approx(figures["metrics"]["nDCG@10"] - before["metrics"]["nDCG@10"])
    assert first["wins"] + first["ties"] + first["losses"] == 20
    assert figures["changes"]["against"] == "words"
    assert any("words: nDCG@10" in line for line in figures["words"])


def test_folders_files_and_names_may_be_compared_with_at_once(orchestrate: Callable, judged: list[str]) -> None:
    assert orchestrate(*QUICK, *LEXICAL, *judged, "save_as=both").code == 0
    folder = folder_of()
    baselines = f"baseline=[both,{folder},{folder}/runs/pairs.trec]"
    done = orchestrate(*QUICK, "pipeline=bm25", *judged, baselines)
    assert done.code == 0, done.err
    text = plain(done.out)
    assert "against both" in text
    assert "against pairs.trec" in text
    figures = json.loads((folder_of() / "metrics.json").read_text())
    assert list(figures["against"]) == ["both", folder.name, "pairs.trec"]
    assert figures["against"]["both"]["metrics"] == figures["against"][folder.name]["metrics"]
    ps = [one["p_randomization"] for one in figures["comparisons"]]
    assert [one["p_holm"] >= p for one, p in zip(figures["comparisons"], ps, strict=True)] == [True] * 3


def test_keeping_a_name_again_is_said(orchestrate: Callable, corpus: Path, storage_root: Path) -> None:
    words = [*QUICK, "pipeline=bm25", f"corpus.path={corpus}", "save_as=mine"]
    assert "run.kept" in orchestrate(*words).err
    assert "run.replaced" in orchestrate(*words).err
    (kept,) = (storage_root / "runs").glob("*/mine/*/run.trec")
    assert kept.read_text() == (folder_of() / "run.trec").read_text()
    figures = json.loads((folder_of() / "metrics.json").read_text())
    assert figures["corpus"]["split"] == "test", "what auto found"
    assert (figures["null"], figures["comparisons"], figures["changes"]) == (None, [], None)
    shown = orchestrate("cache", "show")
    assert "runs *" in shown.out
    assert orchestrate("cache", "clear", "what=all").code == 0
    assert kept.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["baseline=nope"],
            "task.baseline: 'nope' is neither a kept run nor a folder or file that is there; runs kept",
        ),
        (["batch_queries=0"], "task.batch_queries: found 0; expected a whole number from 1"),
        (["latency_queries=some"], "task.latency_queries: found 'some'; expected a whole number from 0"),
        (["objectives=5"], "task.objectives: found 5; expected a name, a list of names, or null"),
        (["measures=null"], "task.measures: found None; expected a list of names, for example: nDCG@10"),
        (["save_as=a/b"], "task.save_as: found 'a/b'; expected a name of at most 60"),
        (["changes=many"], "task.changes: found 'many'; expected a whole number from 0"),
        (["folds=1"], "task.folds: found 1; expected a whole number from 2"),
        (["folds=2"], "task.folds: no stage of this pipeline learns; expected null, or one that does: fusion@"),
        (["folds=2", "enforce_budget=true", "budget_ms=9"], "task.folds: found 2 beside enforce_budget=true; choose"),
        (["folds=2", "validation=2"], "task.validation: found 2; expected a share above 0 and below 1"),
        (["measures=[INSQ]"], "task.measures[0]: 'INSQ' needs max_rel; for example INSQ(max_rel=1)"),
        (["measures=[AP,RBP(p=0.9)]"], "task.measures[1]: 'RBP(p=0.9)': nothing computes it with rel as it stands"),
    ],
)
def test_mistakes_get_one_clean_message(words: list[str], message: str, orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(*QUICK, "pipeline=bm25", f"corpus.path={corpus}", *words)
    assert (done.code, done.out) == (2, ""), done.err
    assert message in plain(done.err)
    assert "Traceback" not in done.err


# --- what is shown


def test_all_of_it_fits_into_a_terminal_of_a_hundred_columns(
    orchestrate: Callable, judged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert orchestrate(*QUICK, "pipeline=bm25", *judged, "save_as=words").code == 0
    done = orchestrate("evaluate", "latency_queries=3", *RERANKED, *judged, "baseline=words")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 100
    head = next(line for line in lines if "ending at" in line)
    assert head.split() == [
        "ending",
        "at",
        "nDCG@10",
        "RR@10",
        "R@100",
        "AP",
        "unj.@10",
        "p50",
        "ms",
        "p95",
        "ms",
        "p99",
        "ms",
    ]
    rows = [line.split("  ")[0].strip() for line in lines]
    for label in ("precise", "95 % from", "whole, as served", "null (fused)", "oracle", "against words"):
        assert any(label in line for line in lines), label
    assert "whole over words" in rows
    assert "…" not in head


def test_the_queries_that_changed_most_are_shown_or_not(
    orchestrate: Callable, judged: list[str], tmp_path: Path
) -> None:
    words = [*QUICK, "pipeline=bm25", *judged, f"baseline={tmp_path}/theirs.trec"]
    qrels = [
        line.split("\t") for line in Path(judged[0].partition("=")[2], "qrels", "test.tsv").read_text().split("\n")
    ]
    perfect = [f"{query} Q0 {doc} 1 1 theirs\n" for query, doc, _ in qrels[1:4]]
    (tmp_path / "theirs.trec").write_text("".join(perfect))
    done = orchestrate(*words, "changes=2")
    changes = json.loads((folder_of() / "metrics.json").read_text())["changes"]
    assert (changes["against"], len(changes["up"])) == ("theirs.trec", 2)
    for one in changes["up"] + changes["down"]:
        assert one["change"] == pytest.approx(one["after"] - one["before"])
        assert one["text"] in done.out
    assert {one["query_id"] for one in changes["down"]} <= {line.split()[0] for line in perfect}
    assert "theirs.trec has no ranking for 17 of 20 judged queries, which count as 0." in plain(done.out)
    assert "changed most" not in orchestrate(*words, "changes=0").out


def test_a_measure_may_have_parentheses(orchestrate: Callable, corpus: Path) -> None:
    words = [*QUICK, "pipeline=bm25", f"corpus.path={corpus}", "format=json"]
    done = orchestrate(*words, "measures=[nDCG@20,AP(rel=2),Judged@10]")
    assert done.code == 0, done.err
    assert list(json.loads(done.out)["metrics"]) == ["nDCG@20", "AP(rel=2)", "Judged@10"]
    (single,) = json.loads(orchestrate(*words, "measures=P(rel=2)@1").out)["metrics"].items()
    assert single == ("P(rel=2)@1", 1 / 2), "the one document of grade 2 stands first for its query"


def test_a_sweep_keeps_bounds_and_costs_in_its_csv(orchestrate: Callable, judged: list[str]) -> None:
    done = orchestrate("-m", *QUICK, *RERANKED, *judged, "pipeline.stages.fused.top_k=1,10")
    assert done.code == 0, done.err
    (path,) = Path("multirun").glob("*/*/comparison.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        figures = json.loads((path.parent / row["folder"] / "metrics.json").read_text())
        assert float(row["oracle nDCG@10"]) == figures["oracle"]["nDCG@10"]
        assert float(row["null nDCG@10"]) == figures["null"]["metrics"]["nDCG@10"]
        assert (row["tokens a query"], row["usd a query"], row["usd"]) == ("0.0", "0.0", "0.0")


def test_a_sweep_keeps_runs_under_names_of_their_own(orchestrate: Callable, corpus: Path, storage_root: Path) -> None:
    words = ["-m", *QUICK, "pipeline=bm25", f"corpus.path={corpus}", "pipeline.stages.bm25.top_k=1,2"]
    done = orchestrate(*words, "save_as=mine")
    assert done.code == 2
    assert (
        "task.save_as: found 'mine' in a sweep, whose jobs would replace each other's run; expected a name for each "
        "job, for example 'save_as=mine-${hydra:job.num}', or null"
    ) in plain(done.err)
    assert orchestrate(*words, "save_as=a,b").code == 2, "four jobs, two names"
    assert orchestrate(*words, "save_as=mine-${hydra:job.num}").code == 0
    assert orchestrate(*words[:-1], "save_as=2023,2024").code == 0
    kept = {path.parents[1].name for path in (storage_root / "runs").glob("*/*/*/run.trec")}
    assert kept == {"mine-0", "mine-1", "2023", "2024"}


# --- folds


def test_folds_score_each_query_by_a_model_that_did_not_learn_from_it(
    orchestrate: Callable, write_judged: Callable[..., Path], storage_root: Path
) -> None:
    stack = ["pipeline=lexical", "corpus.language=en", f"corpus.path={write_judged()}", "corpus.split=train"]
    done = orchestrate("evaluate", "latency_queries=2", *stack, "folds=3", *TREES, "format=json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert figures["folds"] == 3
    assert figures["n_queries"] == 40
    assert figures["metrics"]["nDCG@10"] == pytest.approx(1.0), "the title tells, whatever the query"
    (fused,) = (one for one in figures["comparisons"] if one["stage"] == "fused")
    assert fused["wins"] > 30
    assert len(json.loads((folder_of() / "per_query.json").read_text())) == 40
    assert not list(storage_root.glob("trained/**/*.json")), "nothing is written to the places of trained models"
    assert plain(done.err).count("evaluate.fold ") == 3
    table = orchestrate(*QUICK, *stack, "folds=3", *TREES)
    assert "40 judged queries, each by models that did not learn from it (3 folds)" in plain(table.out)


def test_folds_cannot_learn_what_is_not_there(orchestrate: Callable, write_judged: Callable[..., Path]) -> None:
    stack = [
        "pipeline=lexical",
        "corpus.language=en",
        f"corpus.path={write_judged(signal=False)}",
        "corpus.split=train",
    ]
    figures = json.loads(orchestrate(*QUICK, *stack, "folds=4", *TREES, "format=json").out)
    assert figures["metrics"]["nDCG@10"] < 0.8, "out of fold there is nothing to remember"
    trained = json.loads(orchestrate("train", "fusion", *stack, "folds=4", *TREES, "format=json").out)
    verdict = next(row for row in trained["systems"] if row["system"] == "fused")
    for name, value in figures["metrics"].items():
        assert verdict[name] == pytest.approx(value), "as train itself judges its folds"


TUNED = """
from types import SimpleNamespace


class Tuned:
    score_kind = "graded"
    needs = frozenset({"text"})

    def __init__(self, path):
        self.model = SimpleNamespace(path=path)

    def score(self, pairs, call):
        return [float(len(document.text)) for _, document in pairs]
"""


def test_folds_warn_of_models_that_are_not_trained_anew(
    orchestrate: Callable, write_judged: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [Query(f"q{place}", f"tell me about zeta{place}x") for place in range(40)]
    write_record(tmp_path / "model", {"query_hashes": list(query_hashes(asked))})
    (tmp_path / "tuned_before.py").write_text(TUNED)
    monkeypatch.syspath_prepend(str(tmp_path))
    stack = ["pipeline=lexical", "corpus.language=en", f"corpus.path={write_judged()}", "corpus.split=train"]
    use = [
        "pipeline.stages.precise.use._target_=tuned_before.Tuned",
        f"+pipeline.stages.precise.use.path={tmp_path}/model",
    ]
    done = orchestrate(*QUICK, *stack, *PRECISE, *use, "folds=2", *TREES)
    assert done.code == 0, done.err
    (warned,) = [line for line in plain(done.err).split("[warning") if "evaluate.learned_from" in line]
    assert "queries=40 stage=precise" in warned
    assert "folds=5" not in warned


def test_the_options_of_the_learner_are_those_of_train(
    orchestrate: Callable, write_judged: Callable[..., Path]
) -> None:
    stack = ["pipeline=lexical", "corpus.language=en", f"corpus.path={write_judged()}", "folds=2"]
    done = orchestrate(*QUICK, *stack, "learner.rounds=0")
    assert done.code == 2
    assert "task.learner.rounds: found 0; expected a whole number from 1" in plain(done.err)
    shown = {
        verb: orchestrate("--cfg", "job", "--package", "task.learner", f"task={verb}").out
        for verb in ("train", "evaluate")
    }
    assert shown["train"] == shown["evaluate"] != ""
