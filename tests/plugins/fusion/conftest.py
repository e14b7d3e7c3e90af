"""ranx as an independent implementation, asked once for all comparisons.

In a process of its own and without numba's compiler: compiling ranx takes minutes, running it as Python milliseconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest

from orchestrator.testing import ranked
from orchestrator.types import RankedList

_SCRIPT = """
import json, sys
from ranx import Run, fuse
lists, asked = json.load(sys.stdin)
runs = [Run({"q": scores}) for scores in lists]
answers = [fuse(runs=runs, norm=norm, method=method, params=params).to_dict()["q"] for norm, method, params in asked]
print(json.dumps([{doc_id: float(score) for doc_id, score in answer.items()} for answer in answers]))
"""
WEIGHTS = {"a": 0.3, "b": 0.7, "c": 1.5}
ASKED = {
    "rrf-1": (None, "rrf", {"k": 1}),
    "rrf-60": (None, "rrf", {"k": 60}),
    **{norm: (norm, "wsum", {"weights": list(WEIGHTS.values())}) for norm in ("min-max", "zmuv", "rank")},
}


@pytest.fixture(scope="session")
def lists() -> dict[str, RankedList]:
    """Three lists that overlap in part, scores on three scales, no ties."""
    rng = np.random.default_rng(11)
    ids = [f"d{place}" for place in range(30)]
    return {
        name: ranked(rng.permutation(ids)[:size].tolist(), scale * np.sort(rng.random(size))[::-1], "cosine", name)
        for name, size, scale in (("a", 20, 30.0), ("b", 12, 1.0), ("c", 2, 5.0))
    }


@pytest.fixture(scope="session")
def ranx(lists: Mapping[str, RankedList]) -> dict[str, dict[str, float]]:
    """What ranx makes of `lists`: name in ASKED -> doc_id -> score."""
    scores = [dict(zip(each.doc_ids, each.scores.tolist(), strict=True)) for each in lists.values()]
    command = [sys.executable, "-W", "ignore", "-c", _SCRIPT]
    done = subprocess.run(
        command,
        input=json.dumps([scores, list(ASKED.values())]),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(ASKED, json.loads(done.stdout), strict=True))
