"""Charts are drawn where they can be, and told of where not."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from orchestrator.chart import bars


def test_bars_become_a_file_with_the_names_in_it(tmp_path: Path) -> None:
    assert bars({"title.bm25": 0.7, "body.bm25": 0.3, "nothing": 0.0}, "share", tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").read_text().startswith("<?xml")
    assert bars({"a": 1.0}, "share", tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_above_zero_is_no_chart(tmp_path: Path) -> None:
    assert not bars({"a": 0.0}, "share", tmp_path / "chart.svg")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_there_is_no_chart_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.chart.find_spec", lambda name: None)
    with structlog.testing.capture_logs() as told:
        assert not bars({"a": 1.0}, "share", tmp_path / "chart.svg")
    assert [event["event"] for event in told] in ([], ["chart.skipped"]), "told where the program logs"
