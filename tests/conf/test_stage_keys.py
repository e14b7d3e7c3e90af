"""Keys beside `use`, as YAML and people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import Pipeline
from orchestrator.errors import ConfigError
from orchestrator.stack.policy import OnError

STAGE = "pipeline.stages.shortlist"
FALLBACK = """defaults:
  - /recall@stages.bm25.use: bm25
  - /rerank@stages.precise.use: tei
  - /rerank@stages.precise.on_error.fallback: bi_encoder
  - _self_
stages:
  bm25: {top_k: 10}
  precise: {top_k: 5, cache: off, max_ms: 300}
"""


@pytest.mark.parametrize(
    ("word", "meant"), [("auto", "auto"), ("off", "off"), ("on", "on"), ("false", "off"), ("true", "on")]
)
def test_yaml_makes_booleans_of_on_and_off_and_both_are_understood(word: str, meant: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    text = FALLBACK.replace("cache: off", f"cache: {word}")
    (tmp_path / "pipeline" / "mine.yaml").write_text(text)
    assert Pipeline.compose(["pipeline=mine"], tmp_path).graph["precise"].cache == meant


def test_a_stand_in_is_chosen_in_the_defaults_list(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "mine.yaml").write_text(FALLBACK)
    node = Pipeline.compose(["pipeline=mine"], tmp_path).graph["precise"]
    assert [type(other.stage).__name__ for other in node.fallbacks] == ["BiEncoderRerank"]
    assert (node.fallbacks[0].name, node.fallbacks[0].path) == ("precise~1", "pipeline.stages.precise")
    assert (node.max_ms, node.cache) == (300, "off")


@pytest.mark.parametrize(
    ("word", "policy"), [("skip", OnError("skip")), ("fail", OnError("fail")), ("null", OnError())]
)
def test_a_policy_is_a_word(word: str, policy: OnError) -> None:
    assert Pipeline.compose([f"{STAGE}.on_error={word}"]).graph["shortlist"].on_error == policy


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("cache=maybe", f"{STAGE}.cache: found 'maybe'; choices: auto, on, off."),
        (
            "on_error=skipp",
            f"{STAGE}.on_error: found 'skipp'; choices: fail, skip, {{fallback: <rerank>}}, null. Did you mean",
        ),
        (
            "on_error={fallback:3}",
            f"{STAGE}.on_error.fallback: found 3; expected a rerank, for example from the defaults",
        ),
        ("max_ms=0", f"{STAGE}.max_ms: found 0.0; expected a number of milliseconds above 0, or null for no limit"),
        ("cache=on", f"{STAGE}.cache: BiEncoderRerank names no model (`model_id`), so its scores cannot be kept"),
    ],
)
def test_a_mistake_is_named_with_its_path_and_the_choices(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Pipeline.compose([f"{STAGE}.{word}"])
    assert str(error.value).startswith(message)


def test_an_unknown_key_of_a_gate_is_named() -> None:
    with pytest.raises(
        ConfigError, match=rf"^{STAGE}\.when\.max_margn: no such key; keys: .* Did you mean 'max_margin'"
    ):
        Pipeline.compose([f"+{STAGE}.when.max_margn=0.1"])


@pytest.mark.parametrize("budget", ["0", "-5", "inf"])
def test_a_budget_that_is_no_time_is_refused(budget: str) -> None:
    with pytest.raises(ConfigError, match=r"^budget_ms: found .*; expected a number of milliseconds above 0"):
        Pipeline.compose([f"budget_ms={budget}"])
