"""The examples run as their READMEs say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import LocalServer, chat

from orchestrator.cli import run

TREE = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (TREE / "examples").glob("*/README.md"))
SLOW = {"finetune", "sweep"}
NEEDS = {"sweep": "hydra_plugins.hydra_optuna_sweeper"}
"""Example -> module without which it does not run, of an extra that not everybody installs."""
APART = {"finetune", "own_plugin_package", "sweep"}
"""Examples whose commands get processes of their own: for a package just installed, or libraries with warnings."""
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
    return [line.split("  #")[0] for line in lines if re.match(r"(\w+=\S+ )?(orchestrate|python) ", line)]


def smaller(command: str, corpus: Path) -> str:
    """The same command with few queries, and over `corpus` where it names none."""
    if re.search(r"orchestrate (run|index|evaluate|train) ", command) and " corpus" not in command:
        command += f" corpus.path={corpus}"
    return f"{command} corpus.max_queries=6 latency_queries=3" if "orchestrate evaluate" in command else command


@dataclass
class Reader:
    """Somebody who types the commands of READMEs, in a copy of the tree's examples under `tree`."""

    tree: Path
    environment: dict[str, str]
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]

    def type(self, command: str, folder: Path) -> str:
        """What the command says, standing in `folder`; `python examples/...` is typed at the top of the tree."""
        words = shlex.split(command)
        in_process = folder.name not in APART and "orchestrate" in words[:2]
        return self._here(words, folder) if in_process else self._there(command, folder)

    def _here(self, words: list[str], folder: Path) -> str:
        """In this process: it starts seconds sooner, and has the models of the commands before in memory."""
        with self.monkeypatch.context() as patch, forgotten(folder):
            patch.chdir(folder)
            patch.delenv("HYDRA_FULL_ERROR", raising=False)
            patch.setattr("sys.argv", ["orchestrate"])
            for name, value in self.environment.items():
                patch.setenv(name, value)
            if words[0] == "PYTHONPATH=.":
                patch.syspath_prepend(str(folder))
            code = run(words[words.index("orchestrate") + 1 :])
        captured = self.capfd.readouterr()
        assert code == 0, captured.err
        return captured.out

    def _there(self, command: str, folder: Path) -> str:
        """By the shell, in a process of its own. `pip install .` goes to a folder of the test and needs no network."""
        installed = str(self.tree / "installed")
        pip = {"PIP_TARGET": installed, "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "1"}
        paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": installed}
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.tree if command.startswith("python examples/") else folder,
            env={**os.environ, **pip, **paths, **self.environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def forgotten(folder: Path) -> Iterator[None]:
    """Modules that come from `folder` are imported anew by the next who asks."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def reader(
    shared_root: Path,
    tmp_path: Path,
    server: LocalServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Reader:
    """Where an example reaches for a language model, a small server answers that speaks its format."""
    server.answer = chat
    services = {"LLM_BASE_URL": f"{server.url}/v1", "LLM_NAME": "qwen3:8b"}
    environment = {**services, "ORCHESTRATOR_HOME": str(shared_root), "COLUMNS": "160"}
    return Reader(tmp_path, environment, monkeypatch, capfd)


@pytest.mark.parametrize("exactly", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["smaller", "exactly"])
@pytest.mark.parametrize(
    "folder",
    [pytest.param(path, marks=pytest.mark.slow if path.name in SLOW else (), id=path.name) for path in EXAMPLES],
)
def test_an_example_runs_as_its_readme_says(folder: Path, exactly: bool, reader: Reader, small_sample: Path) -> None:
    if folder.name in NEEDS:
        pytest.importorskip(NEEDS[folder.name], reason="pip install 'rerank-orchestrator[sweep]'")
    assert commands(folder), "an example says how it is run"
    copy = reader.tree / "examples" / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("outputs", "multirun", "build", "*.egg-info"))
    said = ""
    for command in commands(folder):
        out = reader.type(command if exactly else smaller(command, small_sample), copy)
        assert out.strip() != "" or "pip install" in command
        said += out
    assert SAYS.get(folder.name, "") in " ".join(said.split())  # a narrow table breaks lines
