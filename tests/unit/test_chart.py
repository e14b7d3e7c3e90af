"""Charts are drawn where they can be, and told of where not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import structlog

from orchestrator.report.chart import _spread, bars, beeswarm


def test_bars_become_a_file_with_the_names_in_it(tmp_path: Path) -> None:
    assert bars({"title.bm25": 0.7, "body.bm25": 0.3, "nothing": 0.0}, "share", tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").read_text().startswith("<?xml")
    assert bars({"a": 1.0}, "share", tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_above_zero_is_no_chart(tmp_path: Path) -> None:
    assert not bars({"a": 0.0}, "share", tmp_path / "chart.svg")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_there_is_no_chart_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.report.chart.find_spec", lambda name: None)
    with structlog.testing.capture_logs() as told:
        assert not bars({"a": 1.0}, "share", tmp_path / "chart.svg")
    assert [event["event"] for event in told] in ([], ["chart.skipped"]), "told where the program logs"


def test_a_beeswarm_has_a_row_for_each_name_that_ever_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values, colours = rng.normal(size=(3000, 3)), rng.normal(size=(3000, 3)).astype(np.float32)
    values[:, 1] = 0
    colours[:50, 0] = np.nan
    assert beeswarm(["bm25.score", "idle", "body.length"], values, colours, "SHAP value", tmp_path / "shap.svg")
    text = (tmp_path / "shap.svg").read_text()
    assert text.startswith("<?xml")
    assert "bm25.score" in text
    assert "idle" not in text
    assert len(text) < 1_000_000, "points are one picture, not thousands of shapes"


def test_a_beeswarm_of_nothing_is_no_chart(tmp_path: Path) -> None:
    assert not beeswarm(["a"], np.zeros((5, 1)), np.zeros((5, 1), np.float32), "SHAP value", tmp_path / "shap.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_beeswarm_of_one_point_of_unknown_value_is_drawn(tmp_path: Path) -> None:
    assert beeswarm(["a"], np.ones((1, 1)), np.full((1, 1), np.nan, np.float32), "SHAP value", tmp_path / "shap.svg")


def test_points_that_lie_together_stand_side_by_side() -> None:
    spread = _spread(np.array([0.0, 0.0, 0.0, 1.0]))
    assert spread[3] == 0
    assert len(set(spread[:3].tolist())) == 3
    assert np.abs(_spread(np.zeros(1000))).max() == pytest.approx(0.4)
