"""`training.json`: what a tuned model learned from, and what came of it, beside its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from orchestrator.stage import Json
from orchestrator.storage import write_atomic

RECORD = "training.json"
FORMAT = 1


def write_record(folder: Path, content: Mapping[str, Json]) -> None:
    """Keep the record of a training in the folder of its model."""
    text = json.dumps({"format": FORMAT, **content}, indent=2, ensure_ascii=False)
    write_atomic(folder / RECORD, text + "\n")


def read_record(folder: Path) -> dict[str, Json]:
    """The record in a model's folder; empty where there is none that can be read."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def learned_hashes(stage: object) -> frozenset[str]:
    """Hashes of the queries that the models of a stage learned from, as their folders tell: `trained.query_hashes`."""
    found: set[str] = set()
    for holder in (stage, getattr(stage, "embedder", None), getattr(stage, "encoder", None)):
        path = getattr(getattr(holder, "model", None), "path", None)
        hashes = read_record(Path(path).expanduser()).get("query_hashes") if isinstance(path, str | Path) else None
        if isinstance(hashes, list):
            found.update(str(value) for value in hashes)
    return frozenset(found)
