"""The shipped decision rules against the shipped configuration: what they say of a stack is what the stack is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from orchestrator import Pipeline
from orchestrator.config import schema
from orchestrator.config.job import model_cards, plain, yaml_text
from orchestrator.config.words import value_of
from orchestrator.costs.cost import CostModel, ModelInfo
from orchestrator.deciding.decide import Choice, decide
from orchestrator.deciding.need import Catalogue, Need
from orchestrator.deciding.rules import Rules, StackRule
from orchestrator.deciding.scenario_file import scenario_of

CONF = Path(str(files("orchestrator.conf")))


def composed(*overrides: str, config_dir: Path | None = None) -> DictConfig:
    schema.register()
    extra = [f"hydra.searchpath=[file://{config_dir}]"] if config_dir else []
    with initialize_config_module("orchestrator.conf", version_base="1.3"):
        return compose("config", overrides=[*extra, *overrides])


def cards() -> dict[str, ModelInfo]:
    with initialize_config_module("orchestrator.conf", version_base="1.3"):
        return {
            name: ModelInfo(name, tuple(card.get("languages") or ()), card.get("parameters_millions"))
            for name, card in model_cards().items()
        }


RULES = Rules.of(plain(OmegaConf.load(CONF / "decision" / "default.yaml")))
COST = CostModel.of(plain(OmegaConf.load(CONF / "cost" / "reference.yaml")))


def by_name(stack: StackRule) -> str:
    return stack.name


@pytest.mark.parametrize("stack", RULES.stacks, ids=by_name)
def test_a_stack_is_what_the_rules_say_it_is(stack: StackRule) -> None:
    pipeline = composed(*stack.overrides).pipeline
    # What has no depth to set is named by the scenario; its stages are the scenario's own affair.
    said = {stage.name: stage.top_k for stage in stack.stages if stage.follows_candidates or stage.solved}
    assert {name: pipeline.stages[name].top_k for name in said} == said
    assert stack.stages[-1].top_k == Pipeline.from_config(composed(*stack.overrides)).graph.result.top_k


@pytest.mark.parametrize("stack", [stack for stack in RULES.stacks if stack.on_gpu], ids=by_name)
def test_what_a_gpu_changes_is_there_to_be_changed(stack: StackRule) -> None:
    use = composed(*stack.overrides, *stack.on_gpu).pipeline.stages.precise.use
    assert (use.backend, use.batch_tokens) == ("torch", 16384)


def test_every_model_of_the_rules_has_a_card_that_knows_the_language() -> None:
    known = cards()
    for code, row in RULES.languages.items():
        for name in (*row.embedder, *row.reranker):
            assert "multilingual" in known[name].languages or code in known[name].languages
            assert COST.knows(known[name])


def choices() -> Iterator[Choice]:
    """One choice of every stack, on the CPU and on a GPU where that makes a difference."""
    catalogue = Catalogue(cards())
    seen = set()
    for latency_ms, candidates, language, priority, device, allow in itertools.product(
        (5, 30, 400, 30_000),
        (150, 1000, 10),
        ("zh", "en"),
        ("precision", "balanced"),
        ("cpu", "gpu"),
        ((), ("hub",), ("hub", "api"), ("hub", "api", "llm", "trained")),
    ):
        need = Need(latency_ms, candidates, language, priority, device, allow=frozenset(allow))
        choice = decide(need, RULES, COST, catalogue).choice
        shape = choice.name, any("backend=" in word for word in choice.overrides)
        if shape not in seen:
            seen.add(shape)
            yield choice


@pytest.mark.parametrize("choice", list(choices()), ids=lambda choice: choice.name)
def test_every_chosen_command_composes_and_its_file_says_the_same(choice: Choice, tmp_path: Path) -> None:
    cfg = composed(*choice.overrides)
    pipeline = Pipeline.from_config(cfg)
    known = [
        "model knows",
        "predicted to take",
    ]  # the need's language and budget are added where there is a command line
    doubts = [finding.message for finding in pipeline.lint() if finding.severity == "warning"]
    assert [message for message in doubts if not any(words in message for words in known)] == []
    (tmp_path / "scenario").mkdir()
    body = yaml_text(scenario_of(choice, {word: value_of(word) for word in choice.overrides}))
    (tmp_path / "scenario" / "mine.yaml").write_text(f"# @package _global_\n{body}")
    assert composed("+scenario=mine", config_dir=tmp_path) == cfg


def test_decided_in_python_as_on_the_command_line() -> None:
    pipeline = Pipeline.compose(["+scenario=auto", "need.latency_ms=15"])
    assert [node.name for node in pipeline.graph.nodes] == ["dense"]
    assert pipeline.budget_ms == 15
