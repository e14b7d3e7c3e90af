"""What `calibrate` measured, kept for this machine: one file, written whole."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator.costs.cost import REMOTE_KINDS, StageCost, row_of
from orchestrator.costs.lengths import Lengths
from orchestrator.costs.timing import Throughput
from orchestrator.errors import ConfigError
from orchestrator.log import get_logger
from orchestrator.running.pace import machine, processor
from orchestrator.storage import locked, write_atomic

log = get_logger()

_FORMAT = 1
_LIBRARIES = ("onnxruntime", "openvino", "torch", "numpy", "bm25s", "qdrant-edge-py", "xgboost-cpu", "tokenizers")
_MOST_CORPORA = 50
USUAL_MODEL = "minilm"
"""Of conf/config.yaml: of several local models measured, its row stands for the kind."""


@dataclass(frozen=True)
class CorpusFigures:
    """What was learned of one corpus.

    Attributes:
        name: of the corpus.
        content_hash: of its documents, when it was measured.
        lengths: of its questions and of the documents found for them.
        rows: what searching it costs.
    """

    name: str
    content_hash: str
    lengths: Lengths
    rows: Sequence[StageCost] = ()


@dataclass(frozen=True)
class Setting:
    """How a model runs fastest here.

    Attributes:
        part: `embedder` or `reranker`.
        model: its name.
        values: `backend`, `threads`, `batch_tokens`, as far as they differ from what was configured.
        tried: each way in words -> documents a second.
        gain: documents a second of the best over those of what was configured.
    """

    part: str
    model: str
    values: Mapping[str, str | int]
    tried: Mapping[str, float]
    gain: float


@dataclass(frozen=True)
class Calibration:
    """What stages cost on this machine.

    Attributes:
        made: when, ISO 8601, UTC.
        seconds: how long that took.
        machine: processor, cores, device and backend of the cross-encoder, libraries and their versions.
        rows: measured rows of the cost model.
        settings: of the models, those that were tried.
        throughputs: documents a second by length.
        corpora: key of a corpus -> what was learned of it.
    """

    made: str
    seconds: float
    machine: Mapping[str, Any]
    rows: Sequence[StageCost]
    settings: Sequence[Setting] = ()
    throughputs: Sequence[Throughput] = ()
    corpora: Mapping[str, CorpusFigures] = field(default_factory=dict)

    @property
    def day(self) -> str:
        """The day it was made."""
        return self.made[:10]

    def changed(self) -> list[str]:
        """What is another version now than it was then, in words."""
        now = versions()
        then = self.machine.get("versions", {})
        return [
            f"{name} {then[name]} then, {now[name]} now"
            for name in sorted(set(then) & set(now))
            if then[name] != now[name]
        ]

    def merged(self, new: Calibration) -> Calibration:
        """`new`, with what only this one measured: models that were not at hand this time, other corpora.

        Of several models of one kind the usual one's row stands last, so that it speaks for the kind where a
        prediction names no model; without it the row of the model that was measured first.
        """
        measured = {(row.kind, row.model) for row in new.rows}
        kept = [row for row in self.rows if (row.kind, row.model) not in measured]
        tried = {(one.part, one.model) for one in new.settings}
        settings = [*new.settings, *(one for one in self.settings if (one.part, one.model) not in tried)]
        timed = {(one.part, one.model) for one in new.throughputs}
        throughputs = [*new.throughputs, *(one for one in self.throughputs if (one.part, one.model) not in timed)]
        corpora = dict([*(dict(self.corpora) | dict(new.corpora)).items()][-_MOST_CORPORA:])
        rows = sorted([*new.rows, *kept], key=lambda row: row.model == USUAL_MODEL)
        return dataclasses.replace(new, rows=rows, settings=settings, throughputs=throughputs, corpora=corpora)

    def of_any_version(self) -> Calibration:
        """What no library of this machine has a part in: lengths of corpora, and the times of services."""
        rows = [row for row in self.rows if row.kind in REMOTE_KINDS]
        corpora = {key: dataclasses.replace(one, rows=()) for key, one in self.corpora.items()}
        return dataclasses.replace(self, rows=rows, settings=(), throughputs=(), corpora=corpora)


def path_of(root: Path) -> Path:
    """The file of this machine below `root`, where state lives."""
    return root / "cost" / f"calibration-{machine()}.json"


def versions() -> dict[str, str]:
    """Library -> version, of those installed that times depend on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def this_machine(device: str = "cpu", backend: str = "onnx") -> dict[str, Any]:
    """What a calibration is valid for.

    Args:
        device: that the cross-encoder ran on.
        backend: that it ran with.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "processor": processor() or platform.machine(),
        "cores": cores,
        "device": device,
        "backend": backend,
        "python": platform.python_version(),
        "versions": versions(),
    }


def write(root: Path, calibration: Calibration) -> Path:
    """Keep it, beside what an earlier one measured and this one did not; gives the file.

    Times of an earlier one with other versions of libraries are dropped, which is told.
    """
    path = path_of(root)
    with locked(path.with_name(f".{path.stem}.lock")):  # of two at once, the later keeps what the other measured
        before = read(root)
        found = calibration if before is None else _of_these_versions(before).merged(calibration)
        write_atomic(path, json.dumps({"format": _FORMAT, **_as_json(found)}, indent=1) + "\n")
    return path


def _of_these_versions(before: Calibration) -> Calibration:
    """What still holds of an earlier one."""
    if not (changed := before.changed()):
        return before
    held = before.of_any_version()
    log.info(
        "calibration.dropped",
        because="; ".join(changed),
        local_times=len(before.rows) - len(held.rows),
        settings=len(before.settings),
        kept=f"times of services ({len(held.rows)}), lengths of corpora ({len(held.corpora)})",
    )
    return held


def read(root: Path) -> Calibration | None:
    """That of this machine; None where there is none, or it cannot be read, which is told."""
    path = path_of(root)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return _of(data) if data["format"] == _FORMAT else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        log.warning("calibration.unreadable", path=str(path), reason=str(error), advice="orchestrate calibrate")
        return None


def _as_json(found: Calibration) -> dict[str, Any]:
    corpora = {
        key: {
            "name": one.name,
            "content_hash": one.content_hash,
            "lengths": one.lengths.as_json(),
            "rows": [_row_json(row) for row in one.rows],
        }
        for key, one in found.corpora.items()
    }
    return {
        "made": found.made,
        "seconds": found.seconds,
        "machine": dict(found.machine),
        "rows": [_row_json(row) for row in found.rows],
        "settings": [dataclasses.asdict(one) for one in found.settings],
        "throughputs": [dataclasses.asdict(one) for one in found.throughputs],
        "corpora": corpora,
    }


def _row_json(row: StageCost) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(row).items() if value not in (None, 0.0, {})}


def _of(data: Mapping[str, Any]) -> Calibration:
    return Calibration(
        str(data["made"]),
        float(data["seconds"]),
        dict(data["machine"]),
        [row_of("rows", row) for row in data["rows"]],
        [Setting(**one) for one in data["settings"]],
        [Throughput(**one) for one in data["throughputs"]],
        {str(key): _corpus(one) for key, one in data["corpora"].items()},
    )


def _corpus(data: Mapping[str, Any]) -> CorpusFigures:
    name, rows = str(data["name"]), [row_of("corpora.rows", row) for row in data["rows"]]
    source = f"lengths of the questions and found documents of {name}, counted by calibrate"
    return CorpusFigures(name, str(data["content_hash"]), Lengths.of(data["lengths"], source), rows)
