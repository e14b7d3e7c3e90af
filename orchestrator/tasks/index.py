"""`orchestrate index`: build what the pipeline needs and does not have yet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.log import get_logger
from orchestrator.pipeline import Pipeline
from orchestrator.tasks.flags import flag
from orchestrator.tasks.progress import ProgressBars, say_building

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = get_logger()


def run(cfg: DictConfig, output: Path | None) -> None:
    """Build, then say in one event what is there now."""
    force, verify = flag(cfg, "force"), flag(cfg, "verify")
    started = time.perf_counter()
    built: list[str] = []

    def on_build(stage: str, reason: str) -> None:
        built.append(stage)
        say_building(stage, reason)

    with Pipeline.from_config(cfg) as pipeline, ProgressBars() as progress:
        pipeline.load(progress, on_build, force=force, verify=verify)
        log.info(
            "index.ready",
            corpus=pipeline.corpus.name,
            documents=len(pipeline.corpus),
            embedded=progress.done.get("embed", 0),
            skipped_lines=pipeline.corpus.skipped,
            built=", ".join(built) or "nothing: all up to date",
            root=str(pipeline.storage_root),
            seconds=round(time.perf_counter() - started, 1),
        )
