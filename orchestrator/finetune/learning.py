"""One training: steps, checks on queries held out of it, checkpoints, and going on after a kill."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.finetune.lessons import Lesson, columns
from orchestrator.finetune.losses import LAYOUTS, make_loss
from orchestrator.finetune.networks import Network, quiet, require
from orchestrator.finetune.options import Tuning
from orchestrator.finetune.trainer import Watch, make_trainer
from orchestrator.log import get_logger
from orchestrator.stage import Json, Progress, no_progress
from orchestrator.storage import stable_hash, write_atomic

log = get_logger()

Check = Callable[[Network], float]
"""nDCG@10 of the validation queries' candidates in the order of the model as it is now."""

_SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True)
class Learned:
    """How a training went.

    Attributes:
        steps: that were taken.
        best_step: whose weights are kept; the last one where nothing was checked.
        checks: step -> nDCG@10 on the validation queries; step 0 is the model as it was.
        resumed_from: step at which a training that had been stopped went on, or None.
        seconds: that it took, from where it went on.
        loss: mean over the steps.
    """

    steps: int
    best_step: int
    checks: Mapping[int, float]
    resumed_from: int | None
    seconds: float
    loss: float

    def as_json(self) -> dict[str, Json]:
        """For training.json."""
        values: dict[str, Json] = asdict(self)
        return {**values, "checks": {str(step): value for step, value in self.checks.items()}}


def learn(
    network: Network,
    rows: Sequence[Lesson],
    loss: str,
    tuning: Tuning,
    seed: int,
    work: Path,
    key: Mapping[str, Json],
    check: Check | None = None,
    progress: Progress = no_progress,
) -> Learned:
    """Let `network` learn; it has the weights of the best check afterwards.

    Args:
        network: opened.
        rows: what it learns from.
        loss: by what.
        tuning: how.
        seed: of the order of the rows and of dropout; same seed, same weights on one machine.
        work: where checkpoints lie; a training that was stopped there goes on when `key` is the same.
        key: all that decides about the weights.
        check: measured every `tuning.check_steps` steps; None when there is no query to stop by.
        progress: told ("train", steps, steps in all).
    """
    network.shorten(tuning.max_length_tokens)
    if tuning.freeze_embeddings:
        network.freeze_embeddings()
    checkpoint = prepare_work(work, key)
    checks = _known_checks(work) if checkpoint else {}
    layout = LAYOUTS[network.kind, loss]
    table = require("datasets").Dataset.from_dict(columns(rows, layout))
    batch = tuning.batch_size * (len(rows[0].texts) if layout == "pairs" else 1)
    steps = max(1, math.ceil(math.ceil(len(table) / batch) * tuning.epochs))
    started = time.monotonic()
    if check is not None and not checks:
        checks[0] = check(network)
        _keep_checks(work, checks)
    watch = Watch(check, checks, lambda: _keep_checks(work, checks), progress)
    with _threads(tuning.threads), quiet():
        trainer = make_trainer(network, table, make_loss(network, loss), tuning, seed, work, steps, batch, watch)
        done = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    best = trainer.state.best_global_step if check is not None else trainer.state.global_step
    return Learned(
        trainer.state.global_step,
        int(best or trainer.state.global_step),
        dict(sorted(checks.items())),
        _step(checkpoint) if checkpoint else None,
        time.monotonic() - started,
        float(done.training_loss),
    )


def prepare_work(work: Path, key: Mapping[str, Json]) -> Path | None:
    """The checkpoint that a training with this key goes on from, or None after emptying the folder for a new one."""
    wanted = stable_hash(dict(key), 32)
    kept = _read(work / _SETTINGS)
    last = _last_checkpoint(work) if kept.get("key") == wanted else None
    if last is not None:
        log.info("finetune.resumes", step=_step(last), checkpoint=str(last), reason="same settings and data")
        return last
    if work.is_dir() and any(work.glob("checkpoint-*")):
        reason = "other settings or data" if kept.get("key") != wanted else "no checkpoint is whole"
        log.info("finetune.starts_anew", work=str(work), reason=reason)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_atomic(work / _SETTINGS, json.dumps({"key": wanted, "settings": dict(key)}, indent=2) + "\n")
    return None


def _last_checkpoint(work: Path) -> Path | None:
    """The latest whole checkpoint, half-written ones removed: the state is what transformers writes last."""
    whole = []
    for folder in work.glob("checkpoint-*"):
        if _read(folder / "trainer_state.json"):
            whole.append(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return max(whole, key=_step, default=None)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _known_checks(work: Path) -> dict[int, float]:
    """Checks up to the checkpoint; later ones are made again."""
    last = _last_checkpoint(work)
    found = {int(step): float(value) for step, value in _read(work / "checks.json").items()}
    return {step: value for step, value in found.items() if last is not None and step <= _step(last)}


def _keep_checks(work: Path, checks: Mapping[int, float]) -> None:
    write_atomic(work / "checks.json", json.dumps({str(step): value for step, value in checks.items()}) + "\n")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    torch = require("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
