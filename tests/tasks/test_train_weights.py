"""`orchestrate train weights`, on a corpus where one of two lists is right."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

STACK = [
    *("pipeline=lexical", "corpus.language=en", "fusion@pipeline.stages.fused.use=rrf"),
    *("pipeline.stages.bm25.use.b=1.0", "pipeline.stages.pairs.use.b=0.0", "pipeline.stages.pairs.use.k1=3.0"),
]
"""`bm25` prefers short texts, where the relevant ones are; `pairs` prefers the word often, where they are not."""


@pytest.fixture
def lopsided(tmp_path: Path) -> Path:
    """Of the six texts with a query's word the relevant one is short; in the others the word stands more often."""
    folder = tmp_path / "lopsided"
    (folder / "qrels").mkdir(parents=True)
    documents, queries, qrels = [], [], {"train": [], "test": []}
    for number in range(60):
        word = f"zeta{number}x"
        queries.append({"_id": f"q{number}", "text": f"tell me about {word}"})
        documents.append({"_id": f"z{number}", "text": f"plain {word} note"})
        for place in range(5):
            text = " ".join([word] * (2 + place) + ["filler"] * (30 + 5 * place))
            documents.append({"_id": f"a{number}-{place}", "text": text})
        qrels["train" if number < 40 else "test"].append(f"q{number}\tz{number}\t1")
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, lines in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n")
    return folder


def first_of(orchestrate: Callable, *words: str) -> str:
    done = orchestrate(*words, "format=json")
    assert done.code == 0, done.err
    return str(json.loads(done.out)["results"][0]["doc_id"])


def test_they_are_found_and_serve_by_overrides_and_by_the_scenario(
    orchestrate: Callable, lopsided: Path, storage_root: Path
) -> None:
    words = [*STACK, f"corpus.path={lopsided}"]
    assert first_of(orchestrate, "run", "tell me about zeta50x", *words) != "z50"
    done = orchestrate("train", "weights", *words, "held_out=test", "format=json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    before = found["systems"][1]
    assert before["difference"] > 0.3
    assert before["p_holm"] < 0.05
    assert not found["wins"], "one of the lists alone is as good"
    assert "Not beaten beyond chance: bm25 (p 1)" in found["verdict"]
    assert found["systems"][0]["system"] == "fused tuned"
    assert found["systems"][0]["nDCG@10"] == 1.0
    assert [row["system"] for row in found["systems"][1:]] == ["fused as it was", "bm25", "pairs"]
    assert found["values"]["weights.bm25"] == 1.0 > found["values"]["weights.pairs"]
    assert found["given"] == {"k": 60.0, "weights.bm25": 1.0, "weights.pairs": 1.0}
    assert first_of(orchestrate, "run", "tell me about zeta50x", *words, *found["overrides"]) == "z50"
    scenario = Path(found["scenario"])
    text = scenario.read_text()
    assert text.startswith("# @package _global_\n# orchestrate run --config-dir ")
    program, *command = shlex.split(text.splitlines()[1].removeprefix("# "))
    assert program == "orchestrate"
    assert first_of(orchestrate, command[0], "tell me about zeta50x", *command[1:]) == "z50"
    assert not (storage_root / "trained").exists(), "no model"


def test_a_scenario_of_ones_own_stays_in_force(orchestrate: Callable, lopsided: Path) -> None:
    own = ["+scenario=hybrid", "recall@pipeline.stages.dense.use=bm25", f"corpus.path={lopsided}", "corpus.language=en"]
    own += ["pipeline.stages.bm25.use.b=1.0", "pipeline.stages.dense.use.b=0.0", "pipeline.stages.dense.use.k1=3.0"]
    done = orchestrate("train", "weights", *own, "save=mine/scenario/better.yaml")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "does not win on 8 queries that it did not learn from: nDCG@10 1.0000 against 1.0000 of bm25" in text
    assert "scenario: mine/scenario/better.yaml" in text
    _, *command = shlex.split(Path("mine/scenario/better.yaml").read_text().splitlines()[1].removeprefix("# "))
    assert "+scenario=[hybrid,better]" in command
    assert first_of(orchestrate, command[0], "tell me about zeta50x", *command[1:]) == "z50"


def test_folds_look_for_them_apart(orchestrate: Callable, lopsided: Path) -> None:
    done = orchestrate("train", "weights", *STACK, f"corpus.path={lopsided}", "corpus.split=train", "folds=4")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "verdict on all, each held out once in 4 searches" in text
    assert "fused.use as it was fold 1 fold 2 fold 3 fold 4 found" in text
    assert "on 40 queries that it did not learn from: nDCG@10 1.0000" in text


def test_where_nothing_is_better_no_win_is_claimed(orchestrate: Callable, write_judged: Callable) -> None:
    words = [*STACK, f"corpus.path={write_judged(signal=False)}"]
    done = orchestrate("train", "weights", *words, "held_out=test", "format=json")
    assert done.code == 0, done.err
    assert not json.loads(done.out)["wins"]
    assert "does not win" in json.loads(done.out)["verdict"]


def test_a_weighted_sum_has_weights_too(orchestrate: Callable, lopsided: Path) -> None:
    words = [*STACK[:2], "fusion@pipeline.stages.fused.use=weighted", *STACK[3:], f"corpus.path={lopsided}"]
    done = orchestrate("train", "weights", *words, "held_out=test", "format=json")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["values"]) == {"weights.bm25", "weights.pairs"}
    assert json.loads(done.out)["systems"][0]["nDCG@10"] == 1.0


def test_the_file_has_to_be_one_that_hydra_reads(orchestrate: Callable, lopsided: Path) -> None:
    done = orchestrate("train", "weights", *STACK, f"corpus.path={lopsided}", "save=tuned.txt")
    assert done.code == 2
    assert "task.save: found tuned.txt; expected a file that ends in .yaml" in done.err
