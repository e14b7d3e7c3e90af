"""`orchestrate train fusion`, as a person types it, on corpora of which it is known what can be learned."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FAST = ["learner.rounds=40", "learner.early_stopping_rounds=15", "learner.learning_rate=0.3", "learner.max_depth=3"]
STACK = ["pipeline=lexical", "corpus.language=en"]


def words_for(corpus: Path) -> list[str]:
    return [*STACK, f"corpus.path={corpus}"]


def model_files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "trained").rglob("*.ubj")}


def figures(done: object) -> dict:
    return json.loads(done.out)  # type: ignore[attr-defined]


def test_a_signal_is_learned_and_wins_on_queries_held_out(orchestrate: Callable, write_judged: Callable) -> None:
    words = words_for(write_judged())
    done = orchestrate("train", "fusion", *words, *FAST, "held_out=test")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "40 of 40 judged queries of split 'train', 20 of split 'test' for the verdict" in text
    assert "32 to learn from, 8 to stop by, 20 held out" in text
    assert "Candidates that nobody judged count as not relevant." in text
    assert "wins on 20 queries that it did not learn from: nDCG@10 1.0000" in text
    (folder,) = Path("outputs").glob("*/*-train-*")
    importances = json.loads((folder / "importances.json").read_text())
    assert sum(importances.values()) == pytest.approx(1)
    assert next(iter(importances)).startswith(("title.", "body.", "text."))
    assert (folder / "importances.svg").read_text().startswith("<?xml")
    comparison = json.loads((folder / "comparison.json").read_text())
    assert [row["system"] for row in comparison["systems"]] == ["fused", "bm25", "pairs", "rrf of inputs"]
    assert (folder / "comparison.csv").read_text().startswith("system,nDCG@10,RR@10,R@100,AP,difference,wins")
    served = orchestrate("run", "tell me about zeta41x", *words, "format=json")
    assert served.code == 0, served.err
    first = json.loads(served.out)["results"][0]
    assert first["title"] == "zeta41x guide"
    assert first["score_kind"] == "ltr"


def test_without_a_signal_it_says_that_it_does_not_win(orchestrate: Callable, write_judged: Callable) -> None:
    done = orchestrate("train", "fusion", *words_for(write_judged(signal=False)), *FAST, "held_out=test")
    assert done.code == 0, done.err
    assert "does not win" in done.out
    assert "Not beaten beyond chance" in " ".join(done.out.split())


def test_chunks_learn_from_judgements_of_their_documents(orchestrate: Callable, write_judged: Callable) -> None:
    corpus = write_judged()
    rows = [json.loads(line) for line in (corpus / "corpus.jsonl").read_text().splitlines()]
    chunks = [row | {"_id": f"{row['_id']}#{number}", "parent_id": row["_id"]} for row in rows for number in (1, 2)]
    (corpus / "corpus.jsonl").write_text("".join(json.dumps(chunk) + "\n" for chunk in chunks))
    done = orchestrate("train", "fusion", *words_for(corpus), *FAST, "held_out=test", "format=json")
    assert done.code == 0, done.err
    assert figures(done)["wins"]
    assert figures(done)["systems"][0]["nDCG@10"] == 1.0


def test_same_seed_same_model(orchestrate: Callable, write_judged: Callable, storage_root: Path) -> None:
    words = ["train", "fusion", *words_for(write_judged()), *FAST, "format=json"]
    first = figures(orchestrate(*words))
    kept = model_files(storage_root)
    assert figures(orchestrate(*words)) == first
    assert model_files(storage_root) == kept
    assert len(kept) == 1
    figures(orchestrate(*words, "seed=8"))
    assert model_files(storage_root) != kept


def test_folds_hold_out_every_query_once(orchestrate: Callable, write_judged: Callable) -> None:
    done = orchestrate("train", "fusion", *words_for(write_judged()), *FAST, "folds=3", "corpus.split=train")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "verdict on all of them, each held out once in 3 trainings" in text
    assert "wins on 40 queries" in text


def test_an_ltr_rerank_learns_from_every_stage_before_it(orchestrate: Callable, write_judged: Callable) -> None:
    words = [
        *words_for(write_judged()),
        "fusion@pipeline.stages.fused.use=rrf",
        "pipeline.stages.fused.top_k=50",
        "+rerank@pipeline.stages.shortlist.use=ltr",
        "+pipeline.stages.shortlist.top_k=5",
        "+pipeline.stages.shortlist.inputs=[fused]",
    ]
    done = orchestrate("train", "fusion", *words, *FAST, "held_out=test", "format=json")
    assert done.code == 0, done.err
    assert [row["system"] for row in figures(done)["systems"]] == ["shortlist", "bm25", "pairs", "fused"]
    assert figures(done)["wins"]
    served = orchestrate("run", "tell me about zeta41x", *words, "format=json")
    assert json.loads(served.out)["results"][0]["title"] == "zeta41x guide", served.err


def test_a_model_trained_elsewhere_serves_by_its_path(
    orchestrate: Callable, write_judged: Callable, tmp_path: Path
) -> None:
    model = f"pipeline.stages.fused.use.path={tmp_path / 'model'}"
    trained = orchestrate("train", "fusion", *words_for(write_judged(name="a")), *FAST, model, "format=json")
    assert trained.code == 0, trained.err
    other = write_judged(name="b")
    first, *rest = (other / "corpus.jsonl").read_text().splitlines(keepends=True)
    # Another corpus with the same statistics: a tree cuts at exact values, which one more text here would cross.
    (other / "corpus.jsonl").write_text(json.dumps(json.loads(first) | {"note": "new"}) + "\n" + "".join(rest))
    served = orchestrate("run", "tell me about zeta4x", *words_for(other), model, "format=json")
    assert served.code == 0, served.err
    assert "model.other_corpus" in served.err
    assert json.loads(served.out)["results"][0]["title"] == "zeta4x guide"


def test_figures_on_queries_that_the_model_learned_from_are_warned_of(
    orchestrate: Callable, write_judged: Callable
) -> None:
    words = words_for(write_judged())
    assert orchestrate("train", "fusion", *words, *FAST).code == 0
    warned = orchestrate("evaluate", *words, "corpus.split=train", "latency_queries=0")
    assert "evaluate.learned_from" in warned.err
    assert "queries=32" in re.sub(r"\x1b\[\d*m", "", warned.err)
    assert "evaluate.learned_from" not in orchestrate("evaluate", *words, "latency_queries=0").err


def test_a_missing_model_names_the_command_that_trains_it(orchestrate: Callable, write_judged: Callable) -> None:
    words = words_for(write_judged())
    done = orchestrate("run", "tell me about zeta1x", *words, "format=json")
    assert done.code == 1
    assert "model 'pipeline.stages.fused (XGBoostFusion), which learns from judged queries,' was not found" in done.err
    command = re.search(r"train it: (.*)", done.err)
    assert command is not None
    program, *rest = shlex.split(command[1])
    assert program == "orchestrate"
    assert rest == ["train", "fusion", *words]
    assert orchestrate(*rest, *FAST).code == 0
    assert orchestrate("run", "tell me about zeta1x", *words, "format=json").code == 0


def test_the_command_keeps_a_folder_of_ones_own_configs(orchestrate: Callable, write_judged: Callable) -> None:
    Path("mine").mkdir()
    done = orchestrate("run", "x", "--config-dir", "mine", *words_for(write_judged()))
    assert f"train it: orchestrate train fusion --config-dir {Path('mine').resolve()}" in done.err.replace(
        "file://", ""
    )


def test_queries_for_which_nothing_is_found_are_counted(orchestrate: Callable, write_judged: Callable) -> None:
    corpus = write_judged()
    queries = [json.loads(line) for line in (corpus / "queries.jsonl").read_text().splitlines()]
    for query in queries[:6]:
        query["text"] = "xylophone"
    (corpus / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    done = orchestrate("train", "fusion", *words_for(corpus), *FAST, "held_out=test")
    assert "no stage found a relevant document for them: 6." in " ".join(done.out.split()), done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "reranker"], "task.what: found 'reranker'; choices: fusion, weights,"),
        (["train", "fusion", "pipeline=bm25"], "pipeline.stages: no stage learns; for example: +scenario=learned"),
        (["train", "fusion", *STACK, "task.stage=fusd"], "stages that do: fused. Did you mean 'fused'?"),
        (["train", "fusion", *STACK, "held_out=1.5"], "task.held_out: found 1.5; expected a share below 1"),
        (["train", "fusion", *STACK, "held_out=tset"], "corpus.split: no 'tset'; splits: test"),
        (["train", "fusion", *STACK, "folds=1"], "task.folds: found 1; expected a whole number from 2, or null"),
        (["train", "fusion", *STACK, "folds=2.5"], "task.folds: found 2.5; expected a whole number from 2, or null"),
        (["train", "fusion", *STACK, "batch_queries=0"], "task.batch_queries: found 0; expected a whole number from 1"),
        (
            ["train", "fusion", *STACK, "learner.rounds=0"],
            "task.learner.rounds: found 0; expected a whole number from 1",
        ),
        (["train", "fusion", *STACK, "+learner.depth=3"], "task.learner.depth: LambdaMART has no such option"),
        (
            ["train", "fusion", *STACK, "learner.monotone={bm25.score:2}"],
            "task.learner.monotone.bm25.score: found 2; expected 1, -1 or 0",
        ),
        (
            ["train", "fusion", *STACK, "seen=ignore"],
            "task.seen: found 'ignore'; choices: refuse, drop, out_of_fold, allow",
        ),
        (["train", "fusion", *STACK, "promote=never"], "task.promote: found 'never'; choices: always, if_better"),
        (["train", "weights", *STACK, "promote=if_better"], "task.promote: found if_better with weights"),
        (["train", "weights", *STACK, "search.rounds=8"], "task.search.rounds: found 8 with weights, which has no"),
        (["train", "fusion", *STACK, "save=a/b.yaml"], "task.save: found a/b.yaml with fusion, which writes no"),
        (["train", "weights", *STACK], "pipeline.stages: no fusion with weights; for example: pipeline=hybrid"),
        (
            ["train", "fusion", *STACK, "search.rounds=2", "search.grids=[{max_depht:[2]}]"],
            "task.search.max_depht: LambdaMART has no such option",
        ),
        (["train", "fusion", "again"], "unexpected word 'again': train takes one argument, what to train"),
    ],
)
def test_mistakes_get_one_clean_message(words: list[str], message: str, orchestrate: Callable) -> None:
    done = orchestrate(*words)
    assert done.code == 2, done.err
    assert message in done.err
    assert done.out == ""


_KILLED = """
import sys, time
from orchestrator.plugins.learned.stage import LearnedStage
write = LearnedStage.write_model
def slow(self, directory):
    write(self, directory)
    print("written", flush=True)
    time.sleep(60)
LearnedStage.write_model = slow
from orchestrator.cli import run
run(sys.argv[1:])
"""


def test_a_kill_while_the_model_is_written_leaves_the_old_one(
    orchestrate: Callable, write_judged: Callable, storage_root: Path
) -> None:
    words = ["train", "fusion", *words_for(write_judged()), *FAST, "format=json"]
    assert orchestrate(*words).code == 0
    before = model_files(storage_root)
    command = [sys.executable, "-c", _KILLED, *words, "seed=9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert len(list((storage_root / "trained").rglob(".partial-*"))) == 1
    assert orchestrate("run", "tell me about zeta1x", *words_for(Path(words[4].partition("=")[2]))).code == 0
    assert orchestrate(*words).code == 0
    assert model_files(storage_root) == before
    assert list((storage_root / "trained").rglob(".partial-*")) == []


def two_learners(corpus: Path) -> list[str]:
    """A fusion that learns, and a rerank that learns from its scores."""
    return [
        *words_for(corpus),
        "+rerank@pipeline.stages.shortlist.use=ltr",
        "+pipeline.stages.shortlist.top_k=5",
        "+pipeline.stages.shortlist.inputs=[fused]",
    ]


def test_queries_that_a_stage_before_learned_from_are_refused_unless_allowed(
    orchestrate: Callable, write_judged: Callable
) -> None:
    words = two_learners(write_judged())
    first = orchestrate("train", "fusion", *words, *FAST, "stage=fused")
    assert first.code == 0, first.err
    assert "learned from" not in first.out.replace("did not learn from", "")
    refused = orchestrate("train", "fusion", *words, *FAST, "stage=shortlist")
    assert refused.code == 2
    assert "task.seen: found refuse" in refused.err
    assert "'fused' from 32 of 40." in refused.err
    assert "seen=drop (would leave 8 to learn from, too few: 20 are needed)" in refused.err
    second = orchestrate("train", "fusion", *words, *FAST, "stage=shortlist", "seen=allow")
    assert second.code == 0, second.err
    text = " ".join(second.out.split())
    assert "Stage 'fused' before it learned from 32 of these queries" in text
    orchestrate("train", "fusion", *words, *FAST, "stage=fused", "seed=8")
    served = orchestrate("run", "tell me about zeta41x", *words)
    assert served.code == 2
    assert "inputs.fused.model_id" in served.err, "a model that learned from other scores does not fit"


def test_a_weighted_sum_is_learned_and_serves(orchestrate: Callable, write_judged: Callable[..., Path]) -> None:
    stack = words_for(write_judged(n_queries=40))
    done = orchestrate("train", "fusion", *stack, "learner.model=linear", "held_out=test", "format=json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert "weights kept" in told["told"]
    assert "title.bm25" in list(told["importances"])[:2], "only the title tells the relevant ones apart here"
    assert told["wins"]
    assert orchestrate("run", "tell me about zeta1x", *stack).code == 0


def test_queries_that_a_stage_before_learned_from_are_left_out_where_enough_remain(
    orchestrate: Callable, write_judged: Callable
) -> None:
    words = two_learners(write_judged(n_queries=90))
    first = orchestrate("train", "fusion", *words, *FAST, "stage=fused", "max_queries=30")
    assert first.code == 0, first.err
    second = orchestrate("train", "fusion", *words, *FAST, "stage=shortlist", "seen=drop", "held_out=test")
    assert second.code == 0, second.err
    text = " ".join(second.out.split())
    assert "(24 that stage 'fused' learned from were left out: 36 to learn from and 30 for the verdict)" in text
    assert "too kind" not in text
    warned = orchestrate("evaluate", *words, "corpus.split=train", "latency_queries=0").err
    assert "stage=shortlist" in re.sub(r"\x1b\[\d*m", "", warned), "its own queries are known too"


def test_shap_values_are_kept_and_shown_beside_the_gain(orchestrate: Callable, write_judged: Callable) -> None:
    done = orchestrate("train", "fusion", *words_for(write_judged()), *FAST, "held_out=test")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "feature share of gain mean |SHAP| r" in text
    assert "candidates of 20 queries held out" in text
    (folder,) = Path("outputs").glob("*/*-train-*")
    kept = json.loads((folder / "shap.json").read_text())
    assert kept["queries"] == 20
    sizes = [row["mean_abs_shap"] for row in kept["features"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0
    assert kept["features"][0]["feature"].startswith(("title.", "body.", "text."))
    assert (folder / "shap.svg").read_text().startswith("<?xml")


def test_explain_tells_what_made_a_score(orchestrate: Callable, write_judged: Callable) -> None:
    words = words_for(write_judged())
    assert orchestrate("train", "fusion", *words, *FAST).code == 0
    asked = ["explain", "tell me about zeta1x", *words]
    best = json.loads(orchestrate(*asked, "format=json").out)["documents"][0]["doc_id"]
    found = json.loads(orchestrate(*asked, f"doc={best}", "format=json").out)
    (told,) = found["contributions"]
    (step,) = [step for step in found["documents"][0]["steps"] if step["stage"] == "fused"]
    assert told["stage"] == "fused"
    assert told["score"] == pytest.approx(step["score"], abs=1e-5)
    assert told["start"] + sum(row["added"] for row in told["features"]) == pytest.approx(step["score"], abs=1e-5)
    shown = " ".join(orchestrate(*asked, f"doc={best}").out.split())
    assert "fused: feature value added" in shown
    assert told["features"][0]["feature"] in shown


def test_graded_judgements_are_learned_as_grades(orchestrate: Callable, write_judged: Callable) -> None:
    """Of the six documents of a query one has its word in the title, grade 3, and another a shorter text, grade 1."""
    corpus = write_judged(n_queries=90)
    rows = [json.loads(line) for line in (corpus / "corpus.jsonl").read_text().splitlines()]
    of_query: dict[str, list[dict]] = {}
    for row in rows:
        of_query.setdefault(row["_id"].split("-")[1], []).append(row)
    for split in ("train", "test"):
        path = corpus / "qrels" / f"{split}.tsv"
        head, *lines = path.read_text().splitlines()
        more = []
        for line in lines:
            query, best, _ = line.split("\t")
            second, other = [row for row in of_query[query[1:]] if row["_id"] != best][:2]
            second["text"] = second["text"].removeprefix("something ")
            more += [f"{query}\t{best}\t3", f"{query}\t{second['_id']}\t1", f"{query}\t{other['_id']}\t-2"]
        path.write_text("\n".join([head, *more]) + "\n")
    (corpus / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = orchestrate("train", "fusion", *words_for(corpus), *FAST, "held_out=test", "format=json")
    assert done.code == 0, done.err
    assert figures(done)["systems"][0]["nDCG@10"] > 0.98, "which only the order 3, 1, 0 gives"
    assert orchestrate("train", "fusion", *words_for(corpus), *FAST, "learner.gain=exponential").code == 0


def test_options_are_chosen_inside_each_fold(orchestrate: Callable, write_judged: Callable) -> None:
    grids = "search.grids=[{model:[linear],l2:[0.01,10.0]}]"
    words = ["search.rounds=3", "search.folds=2", grids, "folds=2", "corpus.split=train"]
    done = orchestrate("train", "fusion", *words_for(write_judged()), *FAST, *words)
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "Options chosen among 3 by nDCG@10 on inner folds of the queries to learn from: Fold 1: " in text
    assert "Fold 2: " in text
    assert "The model kept: " in text
    assert "search.time" in done.err


def test_scores_of_a_stage_that_learned_before_can_come_out_of_fold(
    orchestrate: Callable, write_judged: Callable
) -> None:
    words = two_learners(write_judged())
    assert orchestrate("train", "fusion", *words, *FAST, "stage=fused").code == 0
    done = orchestrate("train", "fusion", *words, *FAST, "stage=shortlist", "seen=out_of_fold", "format=json")
    assert done.code == 0, done.err
    told = figures(done)["told"]
    assert "Stage 'fused' learned from 32 of these queries; its scores of them come out of fold, from 5" in told
    assert "too kind" not in told
    assert figures(done)["queries"] == 8
    served = orchestrate("run", "tell me about zeta41x", *words, "format=json")
    assert served.code == 0, served.err
    assert json.loads(served.out)["results"][0]["title"] == "zeta41x guide"
