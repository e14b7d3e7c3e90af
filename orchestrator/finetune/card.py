"""The model card (README.md) of a tuned model, written from the record of its training."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.stage import Json

NOT_STATED = "not stated"
_LICENCE = re.compile(r"^\W*licen[cs]e\b\W+(\w.*?)[\s|;.]*$", re.IGNORECASE | re.MULTILINE)
_PIPELINE_TAGS = {"bi_encoder": "sentence-similarity", "cross_encoder": "text-ranking"}
_WHAT = {
    "bi_encoder": "A bi-encoder: one vector a text",
    "cross_encoder": "A cross-encoder: query and document read together, one logit a pair",
    "late_interaction": "A multi-vector encoder: one vector a token, compared by MaxSim",
}


def data_licence(folder: Path | None) -> str:
    """What the README of a corpus's folder says of its licence, or `not stated`."""
    readme = folder / "README.md" if folder is not None else None
    if readme is None or not readme.is_file():
        return NOT_STATED
    found = _LICENCE.search(readme.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else NOT_STATED


def model_card(record: Mapping[str, Any]) -> str:
    """The text of README.md: front matter as model hubs read it, then what was done and what came of it."""
    parts = [
        _front_matter(record),
        f"# {record['name']}\n\n{_WHAT[record['kind']]}, tuned by `orchestrate train {record['kind']}` "
        f"from {record['base']['label']}.",
        f"## What came of it\n\n{record['tuning']['verdict']}\n\n{record['held_out']['verdict']}\n\n{_figures(record)}",
        "## Data\n\n" + _list(_data(record)),
        "## Recipe\n\n" + _list(_recipe(record)),
        f"## Command\n\n```\n{record['command']}\n```\n\nTo use it:\n\n```\n{record['use']}\n```",
        "## Licences\n\n" + _list({"base model": record["base"]["licence"], "data": record["corpus"]["licence"]}),
        "## Versions\n\n" + _list(record["versions"]),
        "`training.json` beside this file has every setting and figure, and hashes of the queries learned from.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(record: Mapping[str, Any]) -> str:
    kind, licence = record["kind"], record["base"]["licence"]
    keys: dict[str, Json] = {"library_name": "sentence-transformers"}
    if kind in _PIPELINE_TAGS:
        keys["pipeline_tag"] = _PIPELINE_TAGS[kind]
    keys["tags"] = ["sentence-transformers", kind.replace("_", "-"), "rerank-orchestrator"]
    if record["base"]["name"]:
        keys["base_model"] = record["base"]["name"]
    if licence != NOT_STATED:
        keys["license"] = licence
    if record["corpus"]["language"]:
        keys["language"] = [record["corpus"]["language"]]
    lines = [f"{key}: {json.dumps(value)}" for key, value in keys.items()]  # JSON is YAML
    return "\n".join(["---", *lines, "---"])


def _figures(record: Mapping[str, Any]) -> str:
    rows: Sequence[Mapping[str, Any]] = record["held_out"]["systems"]
    if not rows:
        return "No figures: no query was held out."
    measures = [key for key in rows[0] if key != "system"]
    header = ["system", *measures, "difference", "won/tied/lost", "p corrected"]
    lines = [header, ["---"] * len(header), *(_row(row, measures) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(row: Mapping[str, Any], measures: Sequence[str]) -> list[str]:
    cells = [str(row["system"]), *(f"{row[name]:.4f}" for name in measures)]
    if "difference" not in row:
        return [*cells, "", "", ""]
    return [*cells, f"{row['difference']:+.4f}", f"{row['wins']}/{row['ties']}/{row['losses']}", f"{row['p_holm']:.2g}"]


def _data(record: Mapping[str, Any]) -> dict[str, object]:
    corpus, queries = record["corpus"], record["queries"]
    parts = {name: queries[name] for name in ("train", "validation", "held_out")}
    return {
        "corpus": f"{corpus['name']}, {corpus['documents']} documents",
        "queries": ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in parts.items()),
        "which": queries["told"],
        "triples": record["triples"] or "none: judged queries of the corpus",
        "lessons": record["lessons"]["count"],
        "candidates": f"of stage '{record['source']}'",
    }


def _recipe(record: Mapping[str, Any]) -> dict[str, object]:
    training = record["training"]
    kept = {"steps": training["steps"], "kept step": training["best_step"], "seconds": round(training["seconds"])}
    return {"loss": record["loss"], "seed": record["seed"], **record["settings"], **kept}


def _list(values: Mapping[str, object]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in values.items())
