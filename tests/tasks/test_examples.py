"""The examples run as their READMEs say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import LocalServer, chat

TREE = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (TREE / "examples").glob("*/README.md"))
SLOW = {"finetune", "sweep"}
NEEDS = {"sweep": "hydra_plugins.hydra_optuna_sweeper"}
"""Example -> module without which it does not run, of an extra that not everybody installs."""
SAYS = {
    "finetune": "Tuning ",
    "language_routing": "question in zh",
    "llm_rerank": "tokens; $",
    "own_plugin_package": "keyword_boost",
    "swap_reranker": "before",
    "sweep_top_k": '"overrides": ["task=evaluate", "format=json"',
}
"""Example -> what its commands say somewhere, beyond ending well."""


def commands(folder: Path) -> list[str]:
    """The lines of the README's blocks that call a program."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    return [line for line in lines if re.match(r"(\w+=\S+ )?(orchestrate|python) ", line)]


def environment(root: Path, installed: Path, llm: LocalServer) -> dict[str, str]:
    """`pip install .` goes to a folder of the test's own, and needs neither network nor a second build environment.

    Where an example reaches for a language model, a small server answers that speaks its format.
    """
    scripts = Path(sys.executable).parent
    pip = {"PIP_TARGET": str(installed), "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "1"}
    paths = {"PATH": f"{scripts}:{os.environ['PATH']}", "PYTHONPATH": str(installed)}
    services = {"LLM_BASE_URL": f"{llm.url}/v1", "LLM_NAME": "qwen3:8b"}
    return {**os.environ, **pip, **paths, **services, "ORCHESTRATOR_HOME": str(root), "COLUMNS": "160"}


@pytest.mark.parametrize("exactly", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["few queries", "exactly"])
@pytest.mark.parametrize(
    "folder",
    [pytest.param(path, marks=pytest.mark.slow if path.name in SLOW else (), id=path.name) for path in EXAMPLES],
)
def test_an_example_runs_as_its_readme_says(
    folder: Path, exactly: bool, shared_root: Path, tmp_path: Path, server: LocalServer
) -> None:
    if folder.name in NEEDS:
        pytest.importorskip(NEEDS[folder.name], reason="pip install 'rerank-orchestrator[sweep]'")
    server.answer = chat
    assert commands(folder), "an example says how it is run"
    copy = tmp_path / "examples" / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("outputs", "multirun", "build", "*.egg-info"))
    said = ""
    for command in commands(folder):
        few = "" if exactly or "orchestrate evaluate" not in command else " corpus.max_queries=6 latency_queries=3"
        inside = tmp_path if command.startswith("python examples/") else copy
        done = subprocess.run(
            command + few,
            shell=True,
            cwd=inside,
            env=environment(shared_root, tmp_path / "installed", server),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() != "" or "pip install" in command
        said += done.stdout
    assert SAYS.get(folder.name, "") in " ".join(said.split())  # a narrow table breaks lines
