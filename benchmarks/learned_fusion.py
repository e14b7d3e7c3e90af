"""Learned fusion beside its inputs and RRF: trained on a collection's train split, judged on its whole test split.

    python benchmarks/learned_fusion.py DATA_DIR [SET ...] > benchmarks/results/learned_fusion.txt

DATA_DIR holds one folder a collection in BEIR layout with qrels/train.tsv and qrels/test.tsv. English sets run
`+scenario=learned` (BM25 and MiniLM embeddings), Chinese ones `+scenario=chinese` (words only). Each line of a table
is a mean over all test queries; p is that of the paired randomization test, Holm-corrected over the lines of a set.
Also the latency of the learned stage: up to 200 candidates, one query at a time, warm.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETS = {
    "drcd-sent": "chinese",
    "zh-medical-qa": "chinese",
    "covidqa": "learned",
    "policyqa": "learned",
    "selqa": "learned",
}
LATENCY_QUERIES = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument(
        "--words", nargs="*", default=[], help="overrides for every run, for example learner.max_depth=3"
    )
    arguments = parser.parse_args()
    print(header(), flush=True)
    for name in arguments.sets:
        words = [f"+scenario={SETS.get(name, 'learned')}", f"corpus.path={arguments.data_dir / name}"]
        show(name, [*words, *arguments.words])


def header() -> str:
    names = ("rerank-orchestrator", "xgboost-cpu", "bm25s", "numpy", "onnxruntime")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}"


def show(name: str, words: list[str]) -> None:
    found = call("train", "fusion", *words, "held_out=test")
    print(f"\n{name}: +scenario={words[0].partition('=')[2]}, {found['queries']} test queries; {found['told']}")
    print(
        f"{'system':16} {'nDCG@10':>8} {'RR@10':>8} {'R@100':>8} {'AP':>8} {'diff':>8} {'won/tied/lost':>15} {'p':>7}"
    )
    for row in found["systems"]:
        figures = " ".join(f"{row[measure]:8.4f}" for measure in ("nDCG@10", "RR@10", "R@100", "AP"))
        tests = ""
        if "p_holm" in row:
            counts = f"{row['wins']}/{row['ties']}/{row['losses']}"
            tests = f"{row['difference']:+8.4f} {counts:>15} {row['p_holm']:7.2g}"
        print(f"{row['system']:16} {figures} {tests}".rstrip())
    print(found["verdict"])
    print("gain: " + ", ".join(f"{feature} {share:.2f}" for feature, share in list(found["importances"].items())[:8]))
    split = ["corpus.split=test", f"corpus.max_queries={LATENCY_QUERIES}"]
    times = call("evaluate", *words, *split, f"latency_queries={LATENCY_QUERIES}")["stage_latency_ms"]
    print(
        "p50 / p95 ms: " + ", ".join(f"{stage} {ms['p50']:.1f} / {ms['p95']:.1f}" for stage, ms in times.items()),
        flush=True,
    )


def call(*words: str) -> dict[str, Any]:
    """What `orchestrate <words> format=json` writes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "orchestrator", *words, "format=json", f"hydra.run.dir={folder}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
