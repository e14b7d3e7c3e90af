"""Where a saved scenario lies, and what stands in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from orchestrator.config.job import yaml_text
from orchestrator.config.words import quote, value_of
from orchestrator.costs.cost import Predicted
from orchestrator.deciding.decide import Choice
from orchestrator.deciding.expected import NO_DIFFERENCE
from orchestrator.deciding.gains import Known
from orchestrator.deciding.options import Expected
from orchestrator.deciding.scenario_file import body_of, place_of, scenario_of, scenario_text
from orchestrator.errors import ConfigError


def choice(*overrides: str, reasons: tuple[str, ...] = ()) -> Choice:
    return Choice(
        "mine", "BM25 -> 10", overrides, Predicted(1, 2), reasons, Expected(NO_DIFFERENCE, Known(NO_DIFFERENCE))
    )


def content(*overrides: str) -> dict[str, Any]:
    return scenario_of(choice(*overrides), {word: value_of(word) for word in overrides})


@pytest.mark.parametrize(
    ("save", "config_dirs", "file", "words"),
    [
        ("my.yaml", [], "scenario/my.yaml", ["--config-dir", ".", "+scenario=my"]),
        ("a/my.yaml", [], "a/scenario/my.yaml", ["--config-dir", "a", "+scenario=my"]),
        ("a/scenario/my.yaml", [], "a/scenario/my.yaml", ["--config-dir", "a", "+scenario=my"]),
        ("scenario/my.yaml", [], "scenario/my.yaml", ["--config-dir", ".", "+scenario=my"]),
        ("my.yaml", ["conf"], "conf/scenario/my.yaml", ["--config-dir", "conf", "+scenario=my"]),
        ("conf/my.yaml", ["conf"], "conf/scenario/my.yaml", ["--config-dir", "conf", "+scenario=my"]),
    ],
)
def test_a_scenario_lies_where_hydra_looks_for_it(
    save: str, config_dirs: list[str], file: str, words: list[str]
) -> None:
    place = place_of(save, [Path(folder) for folder in config_dirs], ["balanced"])
    assert (place.file, place.words) == (Path(file), words)


def test_a_folder_of_configs_elsewhere_is_searched_too_whatever_its_name() -> None:
    place = place_of("a/my.yaml", [Path("conf (old), it's")], [])
    folder = Path("conf (old), it's").resolve()
    assert place.words == ["--config-dir", "a", f"hydra.searchpath=[{quote(f'file://{folder}')}]", "+scenario=my"]
    assert value_of(place.words[2]) == [f"file://{folder}"]


@pytest.mark.parametrize(
    ("save", "message"),
    [
        ("my", r"^task\.save: found 'my'; expected a file such as my\.yaml"),
        ("my.json", r"^task\.save: found 'my\.json'"),
        ("my file.yaml", r"^task\.save: found 'my file\.yaml'"),
        ("a/balanced.yaml", r"^task\.save: 'balanced' is the name of a scenario that is there already"),
    ],
)
def test_a_place_that_hydra_could_not_read_is_refused(save: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        place_of(save, [], ["balanced"])


def test_words_become_defaults_and_values() -> None:
    words = ["pipeline=bm25", "+scenario=hybrid", "model@models.embedder=minilm", "+extra/group=x", "budget_ms=25"]
    assert content(*words, "pipeline.stages.bm25.top_k=7") == {
        "defaults": [
            "hybrid",
            {"override /pipeline": "bm25"},
            {"override /model@models.embedder": "minilm"},
            {"/extra/group": "x"},
        ],
        "budget_ms": 25,
        "pipeline": {"stages": {"bm25": {"top_k": 7}}},
    }


@pytest.mark.parametrize(
    "value",
    ["1e3", "no", "null", "007", "a: b", "#x", "0x1F", "~", "青光眼 (old)", "1:30", "", "it's", "2026-11-26", "*a"],
)
def test_a_word_that_yaml_would_read_otherwise_comes_back_as_it_was(value: str) -> None:
    text = yaml_text(content(f"corpus.name={quote(value)}"))
    assert OmegaConf.create(text).corpus.name == value


def test_numbers_lists_and_references_come_back_as_they_were() -> None:
    text = yaml_text(content("a.b=[1,2.5,x]", "a.c=true", "a.d=null", "a.e=${oc.env:HOME}", "a.f={g:1}"))
    found = OmegaConf.create(text)
    assert OmegaConf.to_container(found.a) == {
        "b": [1, 2.5, "x"],
        "c": True,
        "d": None,
        "e": "${oc.env:HOME}",
        "f": {"g": 1},
    }


def test_a_stage_taken_away_cannot_be_saved() -> None:
    with pytest.raises(ConfigError, match=r"^task\.save: the stack needs '~pipeline\.stages\.dense', and no file can"):
        content("pipeline=hybrid", "~pipeline.stages.dense")


def test_a_file_says_what_runs_it_why_and_on_what_grounds() -> None:
    place = place_of("my.yaml", [], [])
    text = scenario_text("budget_ms: 25\n", place, choice("pipeline=bm25", reasons=("it is\nquick",)), "2026-11-26")
    lines = text.splitlines()
    assert lines[:2] == ["# @package _global_", "# orchestrate --config-dir . +scenario=my"]
    assert "predicted p50 1.0 ms, p95 2.0 ms" in text
    assert "2026-11-26" in text
    assert "# - it is quick" in lines
    assert body_of(text) == "budget_ms: 25\n"
