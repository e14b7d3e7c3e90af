"""The weighted sum: standardised features, the listwise loss, files, and the one that comes with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import Pipeline
from orchestrator.errors import ConfigError, IndexStateError, ModelNotFoundError
from orchestrator.plugins.learned.linear import LinearRanker, standardised
from orchestrator.plugins.learned.ranker import learner_of, read_ranker
from orchestrator.stage import no_progress
from orchestrator.types import Example

NAMES = ["bm25.score", "bm25.rank", "dense.score", "text.bm25"]


def examples(n: int, seed: int = 3, weights: tuple[float, float] = (2.0, -1.0)) -> list[Example]:
    """Twenty candidates a query; relevant is the greatest of a sum of the two scores, whatever their scale is."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        signal = rng.standard_normal((20, 2))
        features = np.zeros((20, 4), dtype=np.float32)
        features[:, 0], features[:, 2] = signal[:, 0] * rng.uniform(1, 50) + rng.uniform(-9, 9), signal[:, 1]
        features[:, 1], features[:, 3] = rng.standard_normal(20), rng.standard_normal(20)
        grades = np.zeros(20, dtype=np.float32)
        grades[int(np.argmax(standardised(features[:, [0, 2]]) @ np.array(weights)))] = 1
        made.append(Example(f"q{number}", tuple(f"d{i}" for i in range(20)), features, grades))
    return made


def fitted(l2: float = 0.001) -> LinearRanker:
    return LinearRanker.fit(examples(300), examples(50, seed=4), NAMES, l2, no_progress)[0]


def test_columns_are_standardised_and_the_unknown_counts_as_the_least() -> None:
    found = standardised(np.array([[1, 5, np.nan], [3, 5, np.nan], [np.nan, 5, np.nan]], dtype=np.float32))
    column = np.array([1.0, 3.0, 1.0])
    np.testing.assert_allclose(found[:, 0], (column - column.mean()) / column.std())
    np.testing.assert_array_equal(found[:, 1:], 0)


def test_it_learns_the_weights_that_made_the_grades_and_leaves_noise_alone() -> None:
    ranker, told = LinearRanker.fit(examples(400), examples(80, seed=4), NAMES, 0.001, no_progress)
    shares = ranker.shares()
    assert set(shares) == {"bm25.score", "dense.score", "text.bm25"}, "ranks are no features of a sum"
    assert shares["bm25.score"] / shares["dense.score"] == pytest.approx(2, rel=0.15)
    assert shares["text.bm25"] < 0.05
    assert (told.rounds, told.unit) == (3, "weights")
    assert told.validation > 0.95
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_scales_of_a_collection_do_not_matter() -> None:
    ranker, (example,) = fitted(), examples(1, seed=9)
    moved = example.features * np.array([7, 1, 0.1, 3], np.float32) + np.array([100, 0, -5, 2], np.float32)
    np.testing.assert_allclose(ranker.predict(moved), ranker.predict(example.features), atol=1e-4)


def test_more_penalty_smaller_weights() -> None:
    sizes = [float(np.abs(fitted(l2)._weights).sum()) for l2 in (0.001, 0.1, 10.0)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_gradient_is_that_of_the_loss() -> None:
    from scipy.optimize import check_grad

    from orchestrator.plugins.learned.linear import _loss

    made = examples(5)
    rows = [standardised(example.features) for example in made]
    targets = [example.grades.astype(float) for example in made]
    at = np.array([0.3, -0.2, 0.5, 0.1])
    difference = check_grad(lambda w: _loss(w, rows, targets, 0.1)[0], lambda w: _loss(w, rows, targets, 0.1)[1], at)
    assert difference < 1e-5


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    ranker, (example,) = fitted(), examples(1, seed=9)
    ranker.write(tmp_path)
    again = read_ranker(tmp_path)
    np.testing.assert_array_equal(again.predict(example.features), ranker.predict(example.features))
    assert again.digest == ranker.digest != fitted(10.0).digest
    assert again.predict(example.features[:0]).shape == (0,)


@pytest.mark.parametrize("content", ["{", '{"weights": [{"feature": "a"}]}', "[]"])
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "linear.json").write_text(content)
    with pytest.raises(IndexStateError, match=r"linear\.json: .*Train again"):
        read_ranker(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "forest"}, "model: found 'forest'; choices: trees, linear."),
        ({"model": "linear", "l2": -1}, "l2: found -1; expected a number from 0"),
        ({"model": "linear", "l3": 1}, "l3: no such option; options of a linear model: l2, gain."),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        learner_of(options).check(options)
    assert str(error.value) == message


@pytest.fixture
def balanced(shared_root: Path, small_sample: Path) -> Callable[..., Pipeline]:
    words = ["+scenario=balanced", f"corpus.path={small_sample}", f"storage.root={shared_root}", "budget_ms=null"]
    return lambda *more: Pipeline.compose([*words, *more])


def test_the_shipped_model_serves_the_balanced_stack_untrained(balanced: Callable[..., Pipeline]) -> None:
    with balanced() as pipeline:
        result = pipeline.search("who is at risk for low vision?")
        assert [stage.stage for stage in result.trace.stages] == ["bm25", "dense", "fused", "shortlist", "precise"]
        assert len(result.ranked) == 5
        assert result.ranked.score_kind == "ltr"
        assert pipeline.learned_from(pipeline.corpus.topics.queries) == {"precise": 0}, "not trained on the sample"


def test_the_shipped_model_serves_other_settings_and_encoders(balanced: Callable[..., Pipeline]) -> None:
    with balanced("pipeline.stages.bm25.use.k1=2", "pipeline.stages.shortlist.use.precision=float32") as p:
        place = p.place_of_model("precise")
        assert place is not None
        p.graph["precise"].stage.load()  # type: ignore[union-attr]
        place.open(p.loaded, None)


def test_a_language_that_the_shipped_model_does_not_know_is_told(balanced: Callable[..., Pipeline]) -> None:
    with balanced("corpus.language=de") as pipeline:
        place = pipeline.place_of_model("precise")
        assert place is not None
        with pytest.raises(ModelNotFoundError) as error:
            place.open(pipeline.loaded, None)
    text = str(error.value)
    assert 'does not fit: analyzer.stemmer: found "english", expected "german"' in text
    assert "orchestrate train fusion +scenario=balanced" in text
    assert "end without it: rerank@pipeline.stages.precise.use=null" in text


def test_an_unknown_shipped_model_is_refused(storage_root: Path) -> None:
    with pytest.raises(ConfigError, match="no model 'klingon' comes with the package; choices: english, or null"):
        Pipeline.compose(["+scenario=balanced", "pipeline.stages.precise.use.shipped=klingon"])
