"""Configs of installed packages: found by their entry point, never in the way, and clear when they are broken.

Distributions are folders with metadata, as pip leaves them; pip itself installs the example `own_plugin_package`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import Pipeline
from orchestrator.cli import run
from orchestrator.config import searchpath
from orchestrator.errors import ConfigError

STAGE = """
class Boost:
    score_kind = "graded"

    def score(self, pairs, call):
        return [0.0 for _ in pairs]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python imports from."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def install(site: Path, distribution: str, value: str) -> None:
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[orchestrator.conf]\nit = {value}\n")


def package(site: Path, name: str, rerank: str) -> str:
    """A package with a stage and its config; returns the entry point's value."""
    conf = site / name / "conf"
    (conf / "rerank").mkdir(parents=True)
    (site / name / "__init__.py").write_text(STAGE)
    (conf / "__init__.py").write_text("")
    (conf / "rerank" / f"{rerank}.yaml").write_text(f"_target_: {name}.Boost\n")
    return f"{name}.conf"


def test_an_installed_package_adds_its_options(site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    install(site, "the-boost", package(site, "the_boost", "own_boost"))
    assert [each.distribution for each in searchpath.installed_configs()] == ["the-boost"]
    assert run(["--help"]) == 0
    assert "own_boost" in capfd.readouterr().out
    pipeline = Pipeline.compose(["rerank@pipeline.stages.shortlist.use=own_boost"])
    assert type(pipeline.graph["shortlist"].stage).__name__ == "Boost"


def test_an_installed_package_never_replaces_a_shipped_name(site: Path) -> None:
    install(site, "the-taker", package(site, "the_taker", "bi_encoder"))
    stage = Pipeline.compose(["pipeline=bi_encoder"]).graph["shortlist"].stage
    assert type(stage).__name__ == "BiEncoderRerank"


def test_other_hydra_applications_do_not_see_them(site: Path) -> None:
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    install(site, "the-guest", package(site, "the_guest", "boost"))
    searchpath.register()
    with initialize_config_module("the_guest.conf", version_base="1.3"):
        paths = GlobalHydra.instance().config_loader().get_search_path().get_path()
    assert [entry.path for entry in paths if entry.provider == "the-guest"] == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no_such_package.conf", r"cannot be imported \(ModuleNotFoundError: No module named 'no_such_package'\)"),
        ("no_such_package", "leads to no module"),
        ("a_module", "leads to a module, not to a package"),
        ("a_folder", "leads to a folder without an __init__.py"),
        ("a_fault.conf", r"cannot be imported \(ZeroDivisionError"),
    ],
)
def test_a_broken_entry_point_names_its_distribution(
    value: str, problem: str, site: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (site / "a_module.py").write_text("")
    (site / "a_folder").mkdir()
    (site / "a_fault").mkdir()
    (site / "a_fault" / "__init__.py").write_text("1 / 0\n")
    install(site, "some-broken-thing", value)
    message = (
        rf"distribution 'some-broken-thing': its entry point it = '{value}' \(group orchestrator\.conf\) {problem}"
    )
    with pytest.raises(ConfigError, match=message):
        Pipeline.compose([])
    assert run(["check"]) == 2
    assert "pip uninstall some-broken-thing" in capfd.readouterr().err


def test_a_program_that_uses_hydra_itself_composes_a_pipeline_and_keeps_its_own() -> None:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    from orchestrator.pipeline import Pipeline

    with initialize_config_module("orchestrator.conf", version_base="1.3", job_name="theirs"):
        theirs = GlobalHydra.instance().hydra
        assert [node.name for node in Pipeline.compose(["pipeline=bm25"]).graph.nodes] == ["bm25"]
        assert GlobalHydra.instance().hydra is theirs
        assert compose("config", overrides=["budget_ms=5"]).budget_ms == 5
    assert not GlobalHydra.instance().is_initialized()
