"""What stages cost: the arithmetic, where a figure is taken from, and mistakes in the file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from orchestrator.costs.cost import CostModel, ModelInfo
from orchestrator.costs.lengths import Lengths
from orchestrator.errors import ConfigError

SOURCE = "measured"
DATA = {
    "origin": "a test",
    "query_tokens": 10,
    "stages": [
        {"kind": "cross_encoder", "model": "small", "parameters_millions": 20, "ms_per_token": 0.1, "source": SOURCE},
        {"kind": "api", "fixed_ms": 100, "ms_per_document": 2, "source": SOURCE},
        {"kind": "embed", "model": "tiny", "fixed_ms": 5, "ms_per_token": 1, "source": SOURCE},
    ],
    "models": {"listed": {"work": 3, "source": SOURCE}},
    "devices": {"gpu": {"cross_encoder": {"factor": 0.5, "source": SOURCE}}},
    "spread": {"local": {"factor": 1.5, "source": SOURCE}, "remote": {"factor": 3, "source": SOURCE}},
}
COST = CostModel.of(DATA)
PAIR = 10 + 3 + 87  # the question, special tokens, the document


def cross_encoder(model: ModelInfo, device: str = "cpu") -> float:
    return COST.predict("cross_encoder", 7, lengths=Lengths.even(10, 87), model=model, device=device).p50_ms


@pytest.mark.parametrize(
    ("model", "work"),
    [
        (ModelInfo("small", parameters_millions=999), 1),
        (ModelInfo("listed", parameters_millions=999), 3),
        (ModelInfo("by its size", parameters_millions=50), 50 / 20),
        (ModelInfo("of no size"), 1),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_model_costs_what_is_measured_listed_or_follows_from_its_size(model: ModelInfo, work: float) -> None:
    assert cross_encoder(model) == pytest.approx(0.1 * 7 * PAIR * work)


def test_texts_are_cut_at_the_limit_of_the_model() -> None:
    assert cross_encoder(ModelInfo("small", max_length_tokens=40)) == pytest.approx(0.1 * 7 * 40)


def test_a_gpu_changes_only_the_kinds_it_runs() -> None:
    assert cross_encoder(ModelInfo("small"), "gpu") == pytest.approx(0.5 * 0.1 * 7 * PAIR)
    assert COST.predict("api", 7, device="gpu").p50_ms == 100 + 2 * 7


def test_remote_stages_spread_more() -> None:
    assert COST.predict("api", 50).p95_ms == 3 * (100 + 2 * 50)
    assert COST.embed(None).p95_ms == 1.5 * (5 + 1 * 10)


def test_a_figure_of_the_model_itself_goes_before_one_of_its_kind() -> None:
    row = {"kind": "cross_encoder", "model": "listed", "ms_per_token": 0.7, "fixed_ms": 4, "source": "calibrate"}
    measured = CostModel.of({**DATA, "stages": [*DATA["stages"], row]})
    found = measured.predict("cross_encoder", 7, lengths=Lengths.even(10, 87), model=ModelInfo("listed"))
    assert found.p50_ms == pytest.approx(4 + 0.7 * 7 * PAIR)
    assert measured.knows(ModelInfo("listed"))


def test_what_is_known_of_a_model() -> None:
    assert COST.knows(ModelInfo("small"))
    assert COST.knows(ModelInfo("listed"))
    assert COST.knows(ModelInfo("sized", parameters_millions=1))
    assert not COST.knows(ModelInfo("mine"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": [{"kind": "bm25", "fixed_ms": 1}]}, r"^cost\.stages\[0\]\.source: missing; no source, no number"),
        ({"stages": [{"kind": "bm25", "fixed": 1, "source": "x"}]}, r"^cost\.stages\[0\]\.fixed: .*'fixed_ms'\?"),
        (
            {"stages": [{"kind": "bm25", "fixed_ms": "1", "source": "x"}]},
            r"fixed_ms: found '1'; expected a number of 0",
        ),
        ({"stages": ["bm25"]}, r"^cost\.stages\[0\]: found 'bm25'; expected keys: kind"),
        ({"models": {"m": {"work": 2}}}, r"^cost\.models\.m\.source: missing; no source, no number"),
        ({"spread": {"local": {"factor": 2, "source": "x"}}}, r"^cost\.spread\.remote: missing"),
        ({"sprea": {}}, r"^cost\.sprea: unknown key.*Did you mean 'spread'\?"),
        ({"origin": ""}, r"^cost\.origin: missing"),
    ],
)
def test_mistakes_in_the_file_name_their_path(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CostModel.of({**DATA, **change})


def test_a_kind_without_figures_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"no figures for stages of kind 'cross_encodr'.*Did you mean 'cross_encoder'"
    ):
        COST.predict("cross_encodr", 1)


def test_the_shipped_figures_say_what_the_benchmarks_said() -> None:
    path = Path(str(files("orchestrator.conf"))) / "cost" / "reference.yaml"
    data = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(data, dict)
    cost = CostModel.of(data)
    minilm = ModelInfo("ms_marco_minilm_l6")
    assert cost.embed(ModelInfo("minilm")).p50_ms == pytest.approx(9.6, abs=0.1)
    assert cost.predict("bm25", 100_000).p50_ms == pytest.approx(0.8, abs=0.1)
    assert cost.predict("dense", 20_000).p50_ms == pytest.approx(2.9, abs=0.4)
    assert cost.predict("dense", 100_000).p50_ms == pytest.approx(15.5, abs=0.2)
    assert cost.predict("bi_encoder", 1000).p50_ms == pytest.approx(0.468, abs=0.05)
    pairs = cost.predict(
        "cross_encoder", 100, lengths=Lengths.even(cost.query_tokens, 140 - cost.query_tokens - 3), model=minilm
    )
    assert pairs.p50_ms == pytest.approx(2842, abs=1)
    large = cost.predict(
        "cross_encoder", 1, lengths=Lengths.even(cost.query_tokens, 140), model=ModelInfo("bge_reranker_v2_m3")
    )
    assert 500 < large.p50_ms < 1000, "users report half a second a document"


def test_a_row_of_a_kind_goes_before_those_of_its_models_whatever_the_order() -> None:
    rows = [
        {"kind": "x", "model": "dear", "fixed_ms": 1000, "source": "here"},
        {"kind": "x", "fixed_ms": 1, "source": "here"},
    ]
    for stages in (rows, rows[::-1]):
        cost = CostModel.of({**DATA, "stages": [*DATA["stages"], *stages]})
        assert cost.predict("x", 1).p50_ms == 1
        assert cost.predict("x", 1, model=ModelInfo("dear")).p50_ms == 1000
