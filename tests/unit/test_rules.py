"""Mistakes in a copy of the decision rules: each names its path, what was found, and the choices."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from orchestrator.deciding.rules import Range, Rules
from orchestrator.errors import ConfigError

STACK: dict[str, Any] = {
    "name": "mine",
    "overrides": ["pipeline=mine"],
    "stack": "BM25 -> cross-encoder",
    "because": "I measured it",
    "candidates": {"from": 21, "to": 200},
    "stages": {
        "bm25": {"kind": "bm25", "top_k": 100, "set": [10, 100]},
        "precise": {"kind": "cross_encoder", "top_k": 5},
    },
}
QUALITY = {"reference": "mine"}
LANGUAGES = {"other": {"reranker": ["mmarco_minilm_l12"], "because": "many"}, "en": {"because": "no model"}}


def rules(path: str = "", value: object = None) -> Rules:
    """The rules above with one value changed; `path` is dotted, from the stack."""
    stack = copy.deepcopy(STACK)
    *parents, last = path.split(".")
    node = stack
    for key in parents:
        node = node[key]
    if path:
        node[last] = value
    return Rules.of({"stacks": [stack], "languages": LANGUAGES, "quality": QUALITY})


def test_a_table_is_read_as_written() -> None:
    (stack,) = rules().stacks
    assert stack.candidates == Range(21, 200)
    assert stack.slots == ("reranker",)
    assert stack.stages[0].solved == Range(10, 100)
    assert stack.priorities == ("precision", "balanced", "speed")


def test_a_language_without_a_row_gets_the_one_of_all_others() -> None:
    assert rules().language("sw").reranker == ("mmarco_minilm_l12",)
    assert rules().language("en").models("reranker") == ()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("expectd", 3, r"^decision\.stacks\[0\]\.expectd: unknown key; keys: name, .*Did you mean 'expected'\?"),
        ("because", "", r"\.because: missing; needed: name, "),
        ("overrides", "pipeline=mine", r"\.overrides: found 'pipeline=mine'; expected a list"),
        ("priorities", ["fast"], r"\.priorities\[0\]: found 'fast'; choices: precision, balanced, speed\."),
        ("needs", ["gpus"], r"\.needs\[0\]: found 'gpus'; choices: hub, api, llm, trained\."),
        ("devices", ["cpus"], r"\.devices\[0\]: found 'cpus'; choices: cpu, gpu\. Did you mean 'cpu'\?"),
        ("candidates", {"form": 3}, r"\.candidates\.form: unknown key; keys: from, to\. Did you mean 'from'\?"),
        ("candidates", 3, r"\.candidates: found 3; expected keys: from, to"),
        ("stages", ["bm25"], r"\.stages: found \['bm25'\]; expected name: \{kind: \.\.\., top_k: \.\.\.\}"),
        ("stages.bm25.top_k", 0, r"\.stages\.bm25\.top_k: found 0; expected a whole number of 1 or more"),
        ("stages.bm25.set", "all", r"\.stages\.bm25\.set: found 'all'; expected candidates, or \[least, most\]"),
        ("stages.bm25.set", [9, 3], r"\.stages\.bm25\.set: found \[9, 3\]; expected the smaller first"),
        ("stages.precise.set", [1, 2], r"\.stages: two stages with a depth to solve; expected one at most"),
    ],
)
def test_mistakes_name_their_path(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rules(path, value)


def test_names_stand_once_and_other_languages_have_a_row() -> None:
    with pytest.raises(ConfigError, match=r"^decision\.stacks\[1\]\.name: 'mine' stands twice"):
        Rules.of({"stacks": [STACK, STACK], "languages": LANGUAGES, "quality": QUALITY})
    with pytest.raises(ConfigError, match=r"^decision\.languages\.other: missing"):
        Rules.of({"stacks": [STACK], "languages": {"en": {"because": "x"}}, "quality": QUALITY})
    with pytest.raises(ConfigError, match=r"^decision\.languages: missing"):
        Rules.of({"stacks": [STACK]})
