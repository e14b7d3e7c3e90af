"""`plan` and `+scenario=auto`, as a person types them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

STACKS = {"bm25", "edge", "chinese", "hybrid", "low_latency", "learned", "balanced", "high_precision"}
STACKS |= {"cross_encoder", "two_stage", "hosted_api", "prototype_llm"}
AUTO = "+scenario=auto"

# Two stacks that need no model, told apart by their depth.
RULES = """
quality: {reference: short}
stacks:
  - {name: short, overrides: [pipeline=bm25], stack: BM25 -> 10, because: little time,
     stages: {bm25: {kind: bm25, top_k: 10}}}
  - {name: long, overrides: [pipeline=bm25, pipeline.stages.bm25.top_k=2], stack: BM25 -> 2,
     expected: {difference: 0.1, sd: 0.1, sets: 3, source: a test},
     because: much time, latency_ms: {from: 50}, stages: {bm25: {kind: bm25, top_k: 2}}}
languages:
  other: {because: no model}
"""


@pytest.fixture
def own_rules(orchestrate: Callable) -> list[str]:
    folder = Path("my_conf/decision")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(RULES)
    return ["--config-dir", "my_conf", "decision=mine"]


@pytest.fixture
def chinese(tmp_path: Path) -> Path:
    folder = tmp_path / "chinese"
    folder.mkdir()
    texts = ["青光眼会损害视神经。", "高血压会损害心脏和肾脏。", "糖尿病需要长期控制血糖。"]
    lines = [json.dumps({"_id": str(place), "text": text}) for place, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    return folder


def plan(orchestrate: Callable, *words: str) -> dict:
    done = orchestrate("plan", *words, "format=json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


def test_plan_prints_all_stacks_the_choice_its_command_and_the_reasons(orchestrate: Callable) -> None:
    done = orchestrate("plan", "latency_ms=150", "candidates=1000", "doc_tokens=140")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["*", "balanced", "100", "33", "50", "yes", "+.038", "±", ".033", "published"] in lines
    assert ["low_latency", "1000", "13", "19", "yes", "-.046", "±", ".073", "published"] in lines
    assert ["hybrid", "–", "12", "18", "yes", "0", "published"] in lines
    assert ["cross_encoder", "–", "–", "–", "–", "–"] in lines
    assert "orchestrate +scenario=balanced model@models.embedder=minilm pipeline.stages.bm25.top_k=1000" in done.out
    assert "it was not measured on your documents; what this finds would weigh more: orchestrate evaluate" in done.out
    assert "not measured on this machine" in done.out
    assert "needs a language model: allow=[llm]" in done.out
    assert list(Path.cwd().iterdir()) == []


def test_json_has_the_documented_shape(orchestrate: Callable) -> None:
    found = plan(orchestrate, "latency_ms=15")
    assert set(found) == {"choice", "rejected", "stacks", "reference", "do_not_rerank"}
    assert set(found["choice"]) >= {"name", "overrides", "command", "predicted_ms", "reasons"}
    assert set(found["choice"]["predicted_ms"]) == {"p50", "p95"}
    assert found["choice"]["overrides"] == ["+scenario=edge", "model@models.embedder=minilm", "budget_ms=15"]
    assert {found["choice"]["name"], *(other["name"] for other in found["rejected"])} == STACKS
    assert all(other["reason"] for other in found["rejected"])
    stacks = {row["name"]: row for row in found["stacks"]}
    assert set(stacks) == STACKS
    assert stacks["hybrid"]["expected"] == {"difference": 0.0, "sd": 0.0, "basis": "published", "own_queries": None}
    assert stacks["low_latency"]["reads"] == 200
    assert [name for name, row in stacks.items() if row["chosen"]] == ["edge"]
    assert stacks["chinese"] == {"name": "chinese", "fits": False, "chosen": False}


def test_a_hub_that_is_switched_off_is_not_counted_on(orchestrate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["latency_ms=5000", "language=zh", "doc_tokens=140", "allow=[hub]"]
    assert plan(orchestrate, *words)["choice"]["name"] == "bm25"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    choice = plan(orchestrate, *words)["choice"]
    assert choice["name"] == "cross_encoder"
    assert "model@models.embedder=bge_m3" in choice["overrides"]
    assert "corpus.language=zh" in choice["overrides"]
    assert plan(orchestrate, *words[:3], "allow=[]")["choice"]["name"] == "bm25"


def test_a_cross_encoder_of_ones_own_makes_its_stacks_possible(orchestrate: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).touch()
    words = ["model@models.reranker=local", f"models.reranker.path={folder}"]
    found = plan(orchestrate, "latency_ms=5000", *words)
    (stack,) = [row for row in found["stacks"] if row["name"] == "cross_encoder"]
    assert stack["fits"]
    assert stack["models"]["reranker"] == str(folder)
    assert stack["expected"]["basis"] == "not known"
    assert set(words[:1]) < set(found["choice"]["overrides"])
    assert f"models.reranker.path={folder}" in found["choice"]["overrides"]


def test_a_model_that_is_set_goes_by_the_figures_of_its_card(
    orchestrate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    words = ["model@models.reranker=bge_reranker_v2_m3", "models.embedder.threads=2", "doc_tokens=140", "allow=[hub]"]
    found = plan(orchestrate, *words)
    (stack,) = [row for row in found["stacks"] if row["name"] == "cross_encoder"]
    assert stack["models"] == {"embedder": "minilm", "reranker": "bge_reranker_v2_m3"}
    assert stack["expected"]["basis"] == "published"
    assert stack["predicted_ms"]["p50"] >= stack["reads"] * (15 + 140 + 3) * 0.203 * 28.4, (
        "as much work as the figures say"
    )


def test_what_nothing_can_satisfy_gets_the_fastest_and_by_how_much_it_misses(orchestrate: Callable) -> None:
    choice = plan(orchestrate, "latency_ms=0.01")["choice"]
    assert choice["name"] == "bm25"
    assert choice["misses_by_ms"] == pytest.approx(choice["predicted_ms"]["p95"] - 0.01, abs=0.1)
    assert choice["reasons"][0].startswith("nothing fits 0.01 ms: this is the fastest")


def test_the_language_is_that_of_the_corpus(orchestrate: Callable, chinese: Path) -> None:
    choice = plan(orchestrate, f"corpus.path={chinese}", "corpus.language=auto", "latency_ms=150")["choice"]
    assert choice["name"] == "bm25", "no English embedder for a Chinese corpus"
    done = orchestrate(
        "run", "视神经", "pipeline=bm25", f"corpus.path={chinese}", "corpus.language=auto", "format=json"
    )
    assert done.code == 0, done.err
    assert "detected=zh" in done.err.replace("'", "").replace("\x1b", "")
    assert [row["doc_id"] for row in json.loads(done.out)["results"]] == ["0"]


def test_rules_of_ones_own(orchestrate: Callable, own_rules: list[str]) -> None:
    found = plan(orchestrate, *own_rules, "latency_ms=100")
    assert found["choice"]["name"] == "long"
    assert found["rejected"] == [{"name": "short", "reason": "fits (p95 0.1 ms), expected 0, below +.100 of long"}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["latency=150"], "Did you mean 'latency_ms'?"),
        (["latency_ms=-1"], "need.latency_ms: found -1"),
        (["priority=fast"], "Invalid value 'fast', expected one of [precision, balanced, speed]"),
        (["allow=[apis]"], "need.allow: found 'apis'; choices: hub, api, llm, trained. Did you mean 'api'?"),
        (["allow=3"], "need.allow: found 3; expected a list such as [hub,api]"),
        (["language=chinese"], "need.language: unknown language 'chinese'"),
        (["format=trec"], "format: found trec; plan ranks no documents. Choices: table, json"),
        (["what to take"], "plan takes no argument"),
    ],
)
def test_mistakes_get_one_clean_message(words: list[str], message: str, orchestrate: Callable) -> None:
    done = orchestrate("plan", *words)
    assert done.code == 2, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_auto_runs_what_plan_chooses_and_tells_what_ran(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate("run", "optic nerve", AUTO, "latency_ms=5", f"corpus.path={corpus}", "format=json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["trace"]["budget_ms"] == 5
    (folder,) = Path("outputs").glob("*/*-run-*")
    overrides = list(OmegaConf.load(folder / ".hydra" / "overrides.yaml"))
    assert "pipeline=bm25" in overrides
    assert AUTO not in overrides
    decision = OmegaConf.load(folder / "decision.yaml")
    assert decision.choice.name == "bm25"
    assert {other.name for other in decision.rejected} == STACKS - {"bm25"}


def test_auto_as_a_whole_configuration(orchestrate: Callable) -> None:
    done = orchestrate("--cfg", "job", "-p", "pipeline", AUTO, "latency_ms=15")
    assert done.code == 0, done.err
    assert list(OmegaConf.create(done.out).stages) == ["dense"]


def test_auto_in_a_sweep_decides_for_each_job(orchestrate: Callable, corpus: Path, own_rules: list[str]) -> None:
    query = "what's (the) eye, now: 青光眼?"
    words = ["run", query, AUTO, "latency_ms=5,100", f"corpus.path={corpus}", "format=json", *own_rules]
    done = orchestrate("-m", *words)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["query"]["text"] for line in lines] == [query, query]
    assert [len(line["results"]) for line in lines] == [3, 2]
    jobs = sorted(folder for folder in Path("multirun").glob("*/*/*") if folder.is_dir())
    assert [OmegaConf.load(job / "decision.yaml").choice.name for job in jobs] == ["short", "long"]
    assert [OmegaConf.load(job / ".hydra" / "config.yaml").pipeline.stages.bm25.top_k for job in jobs] == [4, 2]
    assert [OmegaConf.load(job / ".hydra" / "config.yaml").budget_ms for job in jobs] == [5, 100]


def test_auto_in_a_sweep_with_the_shipped_rules(orchestrate: Callable) -> None:
    done = orchestrate("-m", "check", AUTO, "latency_ms=5,15,150")
    assert done.code == 0, done.err
    assert [done.out.count(name) for name in ("BM25Recall", "QdrantRecall", "LateInteractionRerank")] == [2, 2, 1]
    assert [entry.name for entry in Path.cwd().iterdir()] == []


def test_what_the_user_sets_beside_auto_wins(orchestrate: Callable, corpus: Path) -> None:
    words = [AUTO, "latency_ms=5", "budget_ms=7", "pipeline.stages.bm25.top_k=1", f"corpus.path={corpus}"]
    done = orchestrate("run", "optic nerve", *words, "format=json")
    assert done.code == 0, done.err
    line = json.loads(done.out)
    assert len(line["results"]) == 1
    assert line["trace"]["budget_ms"] == 7


def test_auto_where_nothing_fits_warns_and_runs_the_fastest(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate("run", "optic nerve", AUTO, "latency_ms=0.01", f"corpus.path={corpus}", "format=trec")
    assert done.code == 0, done.err
    assert "auto.nothing_fits" in done.err
    assert done.out.startswith("q1 Q0 ")


def test_auto_without_its_rules_says_what_to_write(orchestrate: Callable) -> None:
    done = orchestrate("check", "need.auto=true")
    assert (done.code, done.out) == (2, "")
    assert "need.auto: set without the rules to decide by; write +scenario=auto" in done.err


def test_plan_takes_auto_for_what_it_does_anyway(orchestrate: Callable) -> None:
    assert plan(orchestrate, AUTO, "latency_ms=15")["choice"]["name"] == "edge"


def test_the_command_holds_the_folder_of_configs_even_with_an_awkward_name(orchestrate: Callable) -> None:
    folder = Path("配置 (old)") / "corpus"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("path: pkg://orchestrator/sample\n")
    words = ["--config-dir", "配置 (old)", "corpus=mine", "latency_ms=150", "format=json"]
    done = orchestrate("plan", *words)
    assert done.code == 0, done.err
    command = json.loads(done.out)["choice"]["command"]
    assert "--config-dir" in command
    assert "配置 (old)" in command
    checked = orchestrate("check", "+scenario=auto", *words[:-1])
    assert checked.code == 0, checked.err


def test_folders_of_configs_in_the_search_path_are_kept(orchestrate: Callable, corpus: Path) -> None:
    for folder, name in (("one", "first"), ("two (b)", "second")):
        (Path(folder) / "corpus").mkdir(parents=True)
        (Path(folder) / "corpus" / f"{name}.yaml").write_text(f"path: {corpus}\n")
    searched = f"hydra.searchpath=['file://{Path('two (b)').resolve()}']"
    words = ["--config-dir", "one", searched, "corpus=second", "latency_ms=5"]
    done = orchestrate("plan", *words, "save=mine.yaml")
    assert done.code == 0, done.err
    printed = [line for line in done.out.splitlines() if line.startswith("orchestrate --config-dir ")]
    commands = [shlex.split(line)[1:] for line in printed]
    assert len(commands) == 2, "the stack's own, and that of the file"
    for command in [*commands, ["+scenario=auto", *words]]:
        ran = orchestrate("run", "optic nerve", *command, "format=json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["trace"]["budget_ms"] == 5


def test_without_a_budget_the_scenario_has_none(orchestrate: Callable, corpus: Path) -> None:
    found = plan(orchestrate, f"corpus.path={corpus}", "allow=[]")["choice"]
    assert "budget_ms=null" in found["overrides"]
    assert any(word.startswith("+scenario=") for word in found["overrides"]), "which sets one of its own"
    done = orchestrate("plan", f"corpus.path={corpus}", "allow=[]", "save=my.yaml")
    assert done.code == 0, done.err
    ran = orchestrate("--cfg", "job", "-p", "budget_ms", "--config-dir", ".", "+scenario=my")
    assert ran.out.strip() in ("null", "None", ""), ran.out


def test_a_card_of_ones_own_whose_class_is_missing_is_in_nobodys_way_until_it_is_used(orchestrate: Callable) -> None:
    folder = Path("my_conf") / "model"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("_target_: nowhere.to_be.Found\nrole: embedder\nname: mine\n")
    words = ["--config-dir", "my_conf", "latency_ms=15"]
    assert plan(orchestrate, *words)["choice"]["name"] == "edge"
    used = orchestrate("check", "--config-dir", "my_conf", "model@models.embedder=mine")
    assert used.code == 2
    assert "models.embedder._target_: cannot import 'nowhere.to_be.Found'" in used.err


def test_how_an_embedder_runs_chooses_no_model(orchestrate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    words = ["latency_ms=150", "allow=[hub]", "language=zh"]
    (free, tuned) = (plan(orchestrate, *words, *more)["choice"] for more in ([], ["models.embedder.threads=1"]))
    assert any(word.startswith("model@models.embedder=bge_") for word in free["overrides"]), "Chinese, no minilm"
    assert "models.embedder.threads=1" in tuned["overrides"]
    assert [word for word in tuned["overrides"] if word != "models.embedder.threads=1"] == free["overrides"]


def test_a_saved_scenario_runs_by_the_command_that_is_printed(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate("plan", "latency_ms=5", "save=my.yaml", f"corpus.path={corpus}", "corpus.name='1e3'")
    assert done.code == 0, done.err
    command = "orchestrate --config-dir . +scenario=my"
    assert f"saved as scenario/my.yaml, which runs as it stands:\n{command}\n" in done.out
    text = Path("scenario/my.yaml").read_text()
    assert text.startswith(f"# @package _global_\n# {command}\n# Stack: BM25 -> 10\n# Chosen by orchestrate plan on 20")
    done = orchestrate("run", "optic nerve", *shlex.split(command)[1:], "format=json")
    assert done.code == 0, done.err
    line = json.loads(done.out)
    assert line["trace"]["budget_ms"] == 5
    assert {"d1", "d3"} <= {row["doc_id"] for row in line["results"]}
    done = orchestrate("--cfg", "job", "-p", "corpus", *shlex.split(command)[1:])
    assert OmegaConf.create(done.out).name == "1e3"


def test_a_file_that_says_something_else_is_not_replaced_unasked(orchestrate: Callable) -> None:
    words = ["plan", "save=conf/scenario/my.yaml", "format=json"]
    first = orchestrate(*words, "latency_ms=5")
    assert first.code == 0, first.err
    command = "orchestrate --config-dir conf +scenario=my"
    assert json.loads(first.out)["saved"] == {"file": "conf/scenario/my.yaml", "command": command}
    assert orchestrate(*words, "latency_ms=5").code == 0, "the same again is no conflict"
    other = orchestrate(*words, "latency_ms=6")
    assert (other.code, other.out) == (2, "")
    assert "task.save: conf/scenario/my.yaml is there and says something else; overwrite=true replaces it" in other.err
    assert "budget_ms: 5" in Path("conf/scenario/my.yaml").read_text()


@pytest.mark.slow
def test_a_file_is_replaced_where_that_is_asked_for(orchestrate: Callable) -> None:
    words = ["plan", "save=conf/scenario/my.yaml", "format=json"]
    assert orchestrate(*words, "latency_ms=5").code == 0
    assert orchestrate(*words, "latency_ms=6", "overwrite=true").code == 0
    assert "budget_ms: 6" in Path("conf/scenario/my.yaml").read_text()


def test_a_scenario_of_rules_of_ones_own_is_saved_among_them(orchestrate: Callable, own_rules: list[str]) -> None:
    done = orchestrate("plan", *own_rules, "latency_ms=100", "save=my.yaml", "format=json")
    assert done.code == 0, done.err
    command = json.loads(done.out)["saved"]["command"]
    assert command == "orchestrate --config-dir my_conf +scenario=my"
    assert orchestrate("check", *shlex.split(command)[1:]).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["save=balanced.yaml"], "task.save: 'balanced' is the name of a scenario that is there already"),
        (["save=my"], "task.save: found 'my'; expected a file such as my.yaml"),
        (["save=my.yaml", "overwrite=perhaps"], "task.overwrite: found 'perhaps'; expected true or false"),
    ],
)
def test_mistakes_in_what_to_save_write_nothing(words: list[str], message: str, orchestrate: Callable) -> None:
    done = orchestrate("plan", "latency_ms=5", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert list(Path.cwd().iterdir()) == []
