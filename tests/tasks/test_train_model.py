"""`orchestrate train cross_encoder | bi_encoder | late_interaction`, with the real trainers on a tiny real model."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

BM25_ONLY = "recall@pipeline.stages.dense.use=bm25"
FAST = ["tuning.check_steps=4", "tuning.batch_size=8", "tuning.learning_rate=1e-3", "tuning.epochs=2"]
RULES = ["negatives.skip=0", "negatives.margin=null"]
KINDS = {
    "cross_encoder": ("pipeline=cross_encoder", "reranker", "local"),
    "bi_encoder": ("pipeline=bi_encoder", "embedder", "local_embedder"),
    "late_interaction": ("rerank@pipeline.stages.shortlist.use=late_interaction", "multi_vector", "local_multi_vector"),
}


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers and width 32 with random weights, and no head."""
    return _checkpoint(tmp_path_factory.mktemp("encoder") / "tiny-bert", labels=None)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a cross-encoder."""
    return _checkpoint(tmp_path_factory.mktemp("classifier") / "tiny-cross", labels=1)


def _checkpoint(folder: Path, labels: int | None) -> Path:
    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    torch.manual_seed(3)
    torch.set_num_threads(1)
    letters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "guide", "plain", "something", "note", *letters]
    pieces += [f"##{letter}" for letter in letters]
    tokenizer = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    )
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        max_position_embeddings=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.3,
    )
    if labels is None:
        network = transformers.AutoModel.from_config(config)
    else:
        config.num_labels = labels
        network = transformers.AutoModelForSequenceClassification.from_config(config)
    network.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def words_for(kind: str, corpus: Path, model: Path, *more: str) -> list[str]:
    stack, role, card = KINDS[kind]
    own = [stack, BM25_ONLY, f"model@models.{role}={card}", f"models.{role}.path={model}", f"corpus.path={corpus}"]
    return [*own, *more]


def train(kind: str, corpus: Path, model: Path, *more: str) -> list[str]:
    return ["train", kind, *words_for(kind, corpus, model), "held_out=test", *FAST, *RULES, *more]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_cross_encoder_with_a_new_head_learns_and_serves_by_its_path(
    orchestrate: Callable, write_judged: Callable, encoder: Path, storage_root: Path
) -> None:
    corpus = write_judged()
    done = orchestrate(*train("cross_encoder", corpus, encoder, "loss=listwise"))
    assert done.code == 0, done.err
    assert "finetune.new_head" in done.err
    text = " ".join(done.out.split())
    assert "32 to learn from, 8 to stop by, 20 held out for the verdict" in text
    assert "32 lessons with 4 negatives each" in text
    assert "there is no 'before' to compare with" in text
    assert "The learned stage 'precise tuned' wins on 20 queries" in text
    (folder,) = (storage_root / "tuned").glob("judged-*/cross_encoder-tiny-bert")
    assert not list(folder.parent.glob(".*work")) + list(folder.parent.glob(".*partial*"))

    command = re.search(r"to use it: (.*)", done.out)
    assert command is not None
    program, run, *rest = shlex.split(command[1])
    assert (program, run) == ("orchestrate", "run")
    served = orchestrate("run", "tell me about zeta41x", *rest, "format=json")
    assert served.code == 0, served.err
    assert json.loads(served.out)["results"][0]["title"] == "zeta41x guide"
    # The export that the training made serves: neither the card nor the record beside it is part of the model.
    assert "model.export" not in served.err

    record = json.loads((folder / "training.json").read_text())
    assert record["export"]["max_difference"] < 1e-4
    assert record["queries"] == {
        "told": "40 of 40 judged queries of split 'train', 20 of split 'test' for the verdict",
        "train": 32,
        "validation": 8,
        "held_out": 20,
    }
    assert len(record["query_hashes"]) == 40
    assert record["training"]["checks"]["8"] > record["training"]["checks"]["0"]

    card = (folder / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: "sentence-transformers"\npipeline_tag: "text-ranking"\n')
    for expected in ("from tiny-bert", "| precise tuned | ", "- loss: listwise", "- seed: 7", "- data: not stated"):
        assert expected in card
    assert f"orchestrate train cross_encoder {words_for('cross_encoder', corpus, encoder)[0]}" in card

    warned = orchestrate("evaluate", *rest, "corpus.split=train", "latency_queries=0")
    assert "evaluate.learned_from" in warned.err
    assert "queries=40" in re.sub(r"\x1b\[\d*m", "", warned.err)
    assert "evaluate.learned_from" not in orchestrate("evaluate", *rest, "latency_queries=0").err


@pytest.mark.parametrize("loss", ["contrastive", "binary"])
def test_a_cross_encoder_is_compared_with_itself_before(
    loss: str, orchestrate: Callable, write_judged: Callable, classifier: Path
) -> None:
    done = orchestrate(
        *train("cross_encoder", write_judged(), classifier, f"loss={loss}", "tuning.epochs=6", "format=json")
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    systems = {row["system"]: row["nDCG@10"] for row in found["systems"]}
    assert list(systems) == ["precise tuned", "precise before", "bm25", "dense", "fused"]
    assert found["tuning_won"] is True
    assert found["tuning"].startswith(f"Tuning won: nDCG@10 {systems['precise tuned']:.4f} after, ")
    assert systems["precise tuned"] > systems["precise before"]


@pytest.mark.parametrize("kind", ["bi_encoder", "late_interaction"])
@pytest.mark.parametrize("loss", ["contrastive", "listwise", "distill"])
def test_encoders_learn_by_each_loss(
    kind: str, loss: str, orchestrate: Callable, write_judged: Callable, encoder: Path
) -> None:
    more = ["teacher=bm25"] if loss == "distill" else []
    words = train(kind, write_judged(), encoder, f"loss={loss}", *more, "format=json", "output=tuned")
    done = orchestrate(*words)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["export"]["max_difference"] < 1e-4
    assert found["export"]["problem"] is None
    assert [row["system"] for row in found["systems"]][:2] == ["shortlist tuned", "shortlist before"]
    assert weights(Path("tuned")) != weights(encoder)


def test_a_cross_encoder_learns_from_another_stage(
    orchestrate: Callable, write_judged: Callable, encoder: Path, classifier: Path
) -> None:
    corpus = write_judged()
    words = [*train("cross_encoder", corpus, encoder, "loss=distill", "teacher=judge", "output=tuned"), "format=json"]
    words += ["+rerank@pipeline.stages.judge.use=cross_encoder", "+pipeline.stages.judge.top_k=5"]
    words += ["+model@models.judge=local", f"models.judge.path={classifier}"]
    words += ["pipeline.stages.judge.use.model=${models.judge}", "+pipeline.stages.judge.inputs=[precise]"]
    words += ["task.stage=precise"]
    done = orchestrate(*words)
    assert done.code == 0, done.err
    assert json.loads((Path("tuned") / "training.json").read_text())["teacher"] == "judge"


def test_same_seed_same_model(orchestrate: Callable, write_judged: Callable, encoder: Path) -> None:
    corpus = write_judged()
    for folder, seed in (("a", 7), ("b", 7), ("c", 8)):
        words = train("cross_encoder", corpus, encoder, f"output={folder}", f"seed={seed}", "tuning.epochs=1")
        done = orchestrate(*words)
        assert done.code == 0, done.err
    assert weights(Path("a")) == weights(Path("b"))
    assert weights(Path("a")) != weights(Path("c"))


def test_triples_are_learned_from_and_judged_queries_judge(
    orchestrate: Callable, write_judged: Callable, encoder: Path, tmp_path: Path
) -> None:
    corpus = write_judged()
    triples = [
        {
            "query": f"tell me about zeta{place}x",
            "positive": f"zeta{place}x guide\nsomething plain note",
            "negatives": [f"plain guide\nsomething zeta{place}x note", f"zeta{place + 1}x guide\nsomething plain note"],
        }
        for place in range(100, 140)
    ]
    file = tmp_path / "triples.jsonl"
    held_out = {"query": "tell me about zeta41x", "positive": ["a", "b"], "negatives": []}
    file.write_text("".join(json.dumps(triple) + "\n" for triple in [*triples, held_out]))
    words = train("cross_encoder", corpus, encoder, f"triples={file}", "negatives.per_query=2", "loss=listwise")
    done = orchestrate(*words, "format=json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["lessons"]["count"] == 40
    assert "Learned from triples; 1 ask what a query of the other parts asks: left out." in found["told"]
    assert found["queries"]["train"] == 0
    assert found["wins"]


def test_a_folder_of_ones_own_is_left_alone(
    orchestrate: Callable, write_judged: Callable, encoder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep me")
    corpus = write_judged()
    done = orchestrate(*train("cross_encoder", corpus, encoder, f"output={mine}"))
    assert done.code == 2
    assert f"task.output: {mine} holds notes.txt; expected an empty folder, a model that we tuned" in done.err
    assert (mine / "notes.txt").read_text() == "keep me"
    done = orchestrate(*train("cross_encoder", corpus, encoder, f"output={encoder}"))
    assert "holds the model that the training starts from" in done.err


def test_a_corpus_where_nothing_can_be_learned_says_so(
    orchestrate: Callable, write_judged: Callable, encoder: Path
) -> None:
    corpus = write_judged()
    for split in (corpus / "qrels").iterdir():
        split.write_text(split.read_text().replace("\t1\n", "\t0\n"))
    done = orchestrate(*train("cross_encoder", corpus, encoder))
    assert done.code == 2
    assert "corpus: nothing to learn from: no query has a relevant document and enough negatives" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["cross_encoder", "loss=listwse"],
            "choices: contrastive, binary, listwise, distill. Did you mean 'listwise'?",
        ),
        (["bi_encoder", "loss=binary"], "task.loss: found 'binary' for bi_encoder; choices: contrastive, listwise"),
        (["cross_encoder", "loss=distill"], "task.teacher: missing; task.loss=distill learns from another stage's"),
        (["cross_encoder", "teacher=bm25"], "task.teacher: found 'bm25' with task.loss=contrastive"),
        (["cross_encoder", "folds=3"], "task.folds: found 3 with cross_encoder"),
        (["bi_encoder", "seen=drop"], "task.seen: found drop with bi_encoder, where it has no meaning; expected"),
        (["late_interaction", "search.rounds=2"], "task.search.rounds: found 2 with late_interaction, which has no"),
        (["cross_encoder", "save=a/b.yaml"], "task.save: found a/b.yaml with cross_encoder, which writes no scenario"),
        (["cross_encoder", "tuning.epochs=0"], "task.tuning.epochs: found 0; expected a number above 0"),
        (["cross_encoder", "tuning.device=gpu"], "task.tuning.device: found 'gpu'; choices: cpu, cuda, mps, or null."),
        (["cross_encoder", "+tuning.epoch=1"], "task.tuning.epoch: no such option; options: epochs,"),
        (["cross_encoder", "negatives.margin=0"], "task.negatives.margin: found 0; expected a number above 0, or null"),
        (["cross_encoder", "negatives.depth=1"], "task.negatives.depth: found 1 with skip 2; expected more than are"),
        (["cross_encoder", "pipeline=bm25"], "pipeline.stages: no stage has a model of kind cross_encoder"),
        (["cross_encoder", "pipeline=cross_encoder", "task.stage=precis"], "stages that are: precise. Did you mean"),
        (["bi_encoder", "loss=distill", "teacher=bm52"], "task.teacher: no stage 'bm52'; stages: bm25, dense, fused"),
        (["bi_encoder", "loss=distill", "teacher=shortlist"], "task.teacher: 'shortlist' is the stage that learns"),
        (["bi_encoder", "triples=none.jsonl"], "task.triples: no file none.jsonl; expected JSON lines with query"),
    ],
)
def test_mistakes_get_one_clean_message(words: list[str], message: str, orchestrate: Callable) -> None:
    done = orchestrate("train", *words)
    assert done.code == 2, done.err
    assert message in done.err
    assert done.out == ""


_KILLED = """
import sys, time
from orchestrator.finetune import trainer
measure = trainer.Watch.measure
def slow(self, network, step):
    if step > 3:
        print("past the first checkpoint", flush=True)
        time.sleep(120)
    return measure(self, network, step)
trainer.Watch.measure = slow
from orchestrator.cli import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_training_that_was_stopped_goes_on_and_ends_with_the_same_weights(
    ending: signal.Signals, orchestrate: Callable, write_judged: Callable, encoder: Path, storage_root: Path
) -> None:
    corpus = write_judged()
    words = train("cross_encoder", corpus, encoder, "loss=listwise", "tuning.threads=1", "tuning.check_steps=3")
    assert orchestrate(*words, "output=whole").code == 0
    command = [sys.executable, "-c", _KILLED, *words, "output=stopped"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"past the first checkpoint\n"
        time.sleep(0.2)
        process.send_signal(ending)
    work = Path(".stopped.work")
    assert (work / "checkpoint-3" / "trainer_state.json").exists()
    assert not Path("stopped").exists()

    shutil.copytree(work, "kept.work")
    done = orchestrate(*words, "output=stopped")
    assert done.code == 0, done.err
    assert "finetune.resumes" in done.err
    assert "gone on from step 3" in " ".join(done.out.split())
    assert weights(Path("stopped")) == weights(Path("whole"))
    assert not work.exists()

    shutil.copytree("kept.work", work)
    done = orchestrate(*words, "output=stopped", "seed=8")
    assert "finetune.resumes" not in done.err
    assert "finetune.starts_anew" in done.err
    assert "gone on from" not in done.out
