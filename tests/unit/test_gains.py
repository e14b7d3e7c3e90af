"""The published half of the decision rules: chains of differences, gaps that are told, and mistakes in a table."""

from __future__ import annotations

import copy
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from orchestrator.deciding.gains import Gain, Gains, Like
from orchestrator.deciding.rules import Rules
from orchestrator.errors import ConfigError

CONF = Path(str(files("orchestrator.conf")))
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def shipped() -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(CONF / "decision" / "default.yaml"))
    assert isinstance(content, dict)
    return content


GAINS = Rules.of(shipped()).gains


def offline() -> dict[str, np.ndarray]:
    """Column of benchmarks/results/offline.txt -> nDCG@10 of each collection that nothing learned from."""
    rows = []
    for line in (RESULTS / "offline.txt").read_text().splitlines():
        if line.startswith("mean"):
            break
        figures = re.findall(r"(?<= )\d\.\d{4}", line)
        if len(figures) >= 5:
            rows.append([float(figure) for figure in figures[:5]])
    return dict(zip(("bm25", "dense", "rrf", "late", "balanced"), np.array(rows).T, strict=True))


@pytest.mark.parametrize(
    ("stack", "column"), [("bm25", "bm25"), ("edge", "dense"), ("low_latency", "dense"), ("balanced", "balanced")]
)
def test_figures_of_our_own_are_those_of_the_kept_table(stack: str, column: str) -> None:
    columns = offline()
    differences = columns[column] - columns["rrf"]
    found = GAINS.stacks[stack]
    assert isinstance(found, Gain)
    assert found.difference == pytest.approx(differences.mean(), abs=1e-4)
    assert found.sd == pytest.approx(differences.std(ddof=1), abs=1e-4)
    assert found.sets == len(differences)


@pytest.mark.parametrize(
    ("stack", "against", "sets"),
    [
        ("learned", "rrf of inputs", ("covidqa", "policyqa", "selqa")),
        ("chinese", "bm25", ("drcd-sent", "zh-medical-qa")),
    ],
)
def test_figures_of_learned_fusions_are_those_of_the_kept_table(
    stack: str, against: str, sets: tuple[str, ...]
) -> None:
    text = (RESULTS / "learned_fusion.txt").read_text()
    differences = []
    for name in sets:
        block = text[text.index(f"\n{name}: ") :]
        line = re.search(rf"^{against} .*?([+-]\d\.\d{{4}})", block, re.MULTILINE)
        assert line is not None
        differences.append(float(line[1]))
    found = GAINS.stacks[stack]
    assert isinstance(found, Gain)
    assert found.difference == pytest.approx(np.mean(differences), abs=1e-4)
    assert found.sd == pytest.approx(np.std(differences, ddof=1), abs=1e-4)


def test_the_reference_is_no_different_from_itself() -> None:
    assert GAINS.known("hybrid").estimate.mean == GAINS.known("hybrid").estimate.sd == 0


def test_a_bi_encoder_with_the_recalls_own_vectors_ranks_below_fusion() -> None:
    assert GAINS.known("low_latency", None, 1000).estimate.mean == pytest.approx(-0.0461)


def test_a_model_is_worth_what_the_tables_say_that_lead_to_the_one_that_was_measured() -> None:
    base = GAINS.known("cross_encoder", "ms_marco_minilm_l6", 200).estimate
    by_way_of_bge = GAINS.known("cross_encoder", "mmarco_minilm_l12", 200, "de")
    assert base.mean == 0.039
    assert by_way_of_bge.estimate.mean == pytest.approx(0.039 + 0.0444 - 0.008)
    sds = [0.068 * np.sqrt(2), 0.030 * np.sqrt(1 + 1 / 10), 0.030 * np.sqrt(1 + 1 / 26)]
    assert by_way_of_bge.estimate.sd == pytest.approx(np.sqrt(np.sum(np.square(sds))))
    assert by_way_of_bge.gaps == ()


def test_a_model_that_is_worth_another_thing_in_a_language_is_taken_as_that_there() -> None:
    worth = {
        language: GAINS.known("cross_encoder", "mmarco_minilm_l12", 200, language).estimate.mean
        for language in ("en", "zh", "zh-en", "und")
    }
    by_language = pytest.approx(0.039 + 0.0444 - 0.008)
    assert worth["en"] == pytest.approx(0.039 + 0.0444 - 0.083)
    assert worth["zh"] == worth["zh-en"] == worth["und"] == by_language


def test_what_is_not_known_is_told() -> None:
    known = GAINS.known("cross_encoder", "mine", 200)
    assert known.gaps == ("nothing is published about mine: taken as ms_marco_minilm_l6",)
    assert known.estimate.mean == 0.039
    assert (
        GAINS.known("two_stage", "ms_marco_minilm_l6", 200).gaps[0].startswith("two_stage is taken as cross_encoder: ")
    )
    nothing = GAINS.known("my_stack")
    assert nothing.gaps == ("nothing is published about my_stack: taken as hybrid",)
    assert nothing.estimate.mean == 0
    assert nothing.estimate.sd == max(gain.estimate.sd for gain in GAINS.stacks.values() if isinstance(gain, Gain))


def test_a_stack_over_another_one_is_both_together() -> None:
    chinese, bm25 = GAINS.known("chinese"), GAINS.known("bm25")
    assert chinese.estimate.mean == pytest.approx(bm25.estimate.mean + 0.0286)
    assert (chinese.language, bm25.language) == ("zh", "en")


def test_models_that_lead_in_a_circle_lead_nowhere() -> None:
    there, back = (Gain(0.1, 0.1, 1, "a test", over=name) for name in ("b", "a"))
    gains = Gains("plain", {"x": Gain(0.1, 0.1, 1, "a test", model="c")}, {"a": [there], "b": [back]})
    assert gains.known("x", "a").gaps == ("nothing is published about a: taken as c",)


def test_every_reranker_of_the_table_is_comparable_with_the_one_that_was_measured() -> None:
    for name in GAINS.models:
        assert GAINS.known("cross_encoder", name, 200).gaps == (), name


def changed(path: str, value: object) -> dict[str, Any]:
    data = copy.deepcopy(shipped())
    *parents, last = path.split(".")
    node: Any = data
    for key in parents:
        node = next(row for row in node if row["name"] == key) if isinstance(node, list) else node[key]
    node[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stacks.bm25.expected.source", "", r"^decision\.stacks\[0\]\.expected\.source: missing; no source, no number"),
        (
            "stacks.bm25.expected.difference",
            "much",
            r"\.expected\.difference: found 'much'; expected a number of -1 or",
        ),
        ("stacks.bm25.expected.sd", -0.1, r"\.expected\.sd: found -0\.1; expected a number of 0 or more"),
        ("stacks.bm25.expected.sets", 0, r"\.expected\.sets: found 0; expected a whole number of 1 or more"),
        ("stacks.bm25.expected.dept", 50, r"\.expected\.dept: unknown key; .*Did you mean 'depth'"),
        ("stacks.bm25.expected", 0.1, r"\.expected: found 0\.1; expected keys: difference, sd"),
        ("stacks.two_stage.expected.like", "cross", r"\.expected: no stack 'cross'; stacks: bm25, .*"),
        ("stacks.two_stage.expected.because", "", r"\.expected\.because: missing"),
        (
            "stacks.cross_encoder.expected",
            {"like": "two_stage", "because": "x"},
            r"compared with itself: cross_encoder over",
        ),
        ("quality.reference", "hybird", r"^decision\.quality\.reference: no stack 'hybird'.*Did you mean 'hybrid'"),
        ("quality.margin", "none", r"^decision\.quality\.margin: found 'none'; expected a number"),
        ("quality.indifference", {"fast": 1}, r"^decision\.quality\.indifference\.fast: unknown key; keys: precision"),
        ("quality.spread", {"sd": 0.2, "weight": 1}, r"^decision\.quality\.spread\.source: missing; no source"),
        ("depth.shares", [1], r"^decision\.depth\.shares: found \[1\]; expected depth: share"),
        ("depth.shares", {0: 0.1}, r"^decision\.depth\.shares: found 0; expected a whole number"),
        ("models.bge_reranker_base.over", None, r"^decision\.models\.bge_reranker_base\.over: missing; needed: "),
        (
            "models.mmarco_minilm_l12",
            [{"over": "x"}],
            r"^decision\.models\.mmarco_minilm_l12\[0\]\.difference: missing; ",
        ),
    ],
)
def test_mistakes_name_their_path(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Rules.of(changed(path, value))


def test_a_table_of_ones_own_needs_no_more_than_a_reference() -> None:
    data = shipped()
    data = {"stacks": data["stacks"], "languages": data["languages"], "quality": {"reference": "hybrid"}}
    gains = Rules.of(data).gains
    assert (gains.indifferent("speed"), gains.margin, gains.least_queries) == (0.005, 0.005, 10)
    assert gains.known("cross_encoder", "ms_marco_minilm_l6", 10).estimate.mean == 0.039
    assert isinstance(gains.stacks["hosted_api"], Like)
