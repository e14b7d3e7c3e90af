"""The command `orchestrate`. It turns words into a Hydra run, and every failure into one clean message.

Exit codes: 0; 2 for a configuration error, Hydra's own included; 1 for a run that failed; 130 for Ctrl-C.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import ConfigError, OrchestratorError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from orchestrator.decide import Decision

CONFIG_ERROR, RUN_ERROR, INTERRUPTED = 2, 1, 130


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line `words` (default: this process's) and exit."""
    raise SystemExit(run(list(sys.argv[1:] if words is None else words)))


def run(words: list[str]) -> int:
    """Run one command line; returns the exit code."""
    asked = os.environ.get("HYDRA_FULL_ERROR")
    # Without it Hydra prints its own shortened trace and exits with 1 whatever went wrong.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        _run_hydra(words)
    except KeyboardInterrupt:
        _complain("interrupted; indexes on disk are as they were before")
        return INTERRUPTED
    except BrokenPipeError:  # `orchestrate ... | head`: whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else CONFIG_ERROR
    except Exception as error:
        if asked == "1":
            raise
        return _explain(error)
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        os.environ.update({} if asked is None else {"HYDRA_FULL_ERROR": asked})
    return 0


def _run_hydra(words: list[str]) -> None:
    import hydra

    from orchestrator import schema
    from orchestrator.auto import decide_words
    from orchestrator.words import find_verbs, rewrite, rewrite_completion

    schema.register()
    decision: Decision | None = None
    failed: list[OrchestratorError] = []

    def task(cfg: DictConfig) -> float | None:
        try:
            return _task(cfg, decision)
        except OrchestratorError as error:
            if not _is_single_run():
                raise
            failed.append(error)  # raised here, Hydra would put a line of its own before our message
            return None

    verbs = find_verbs(_config_dirs(words))
    if "COMP_LINE" in os.environ:
        os.environ["COMP_LINE"] = rewrite_completion(os.environ["COMP_LINE"], verbs)
    with tempfile.TemporaryDirectory(prefix="orchestrate-", ignore_cleanup_errors=True) as scratch:
        words, decision = decide_words(rewrite(words, verbs, scratch), _config_dirs(words))
        sys.argv = [sys.argv[0], *words]
        hydra.main(version_base="1.3", config_path="pkg://orchestrator.conf", config_name="config")(task)()
    if failed:
        raise failed[0]


def _is_single_run() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return bool(HydraConfig.get().mode == RunMode.RUN)


def _config_dirs(words: Sequence[str]) -> list[Path]:
    found = [after for word, after in itertools.pairwise(words) if word in ("--config-dir", "-cd")]
    found += [word.partition("=")[2] for word in words if word.startswith(("--config-dir=", "-cd="))]
    return [Path(folder) for folder in found]


def _task(cfg: DictConfig, decision: Decision | None = None) -> float | None:
    from hydra.core.hydra_config import HydraConfig

    from orchestrator import log
    from orchestrator.auto import decide_job, say
    from orchestrator.tasks import run_task
    from orchestrator.words import NO_FOLDER

    log.configure(cfg.log.level.name, json=cfg.log.json)
    output = None if cfg.task.verb in NO_FOLDER else Path(HydraConfig.get().runtime.output_dir)
    if cfg.need.auto and cfg.task.verb != "plan":  # a job of a sweep: each decides for itself
        cfg, decision = decide_job(cfg, output)
    if decision is not None:
        say(decision, output)
    return run_task(cfg, output)


def _explain(error: Exception) -> int:
    """Say on stderr what went wrong; returns the exit code."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, ConfigError):
        _complain(str(error))
        return CONFIG_ERROR
    if isinstance(error, OrchestratorError):
        _complain(str(error))
        return RUN_ERROR
    if isinstance(error, HydraException | OmegaConfBaseException):
        _complain(_hydra_message(error))
        return CONFIG_ERROR
    _complain(f"{type(error).__name__}: {error}\nThis looks like a bug; HYDRA_FULL_ERROR=1 shows where it happened.")
    return RUN_ERROR


def _hydra_message(error: Exception) -> str:
    """Hydra's message, with the keys that were possible where an unknown one was given."""
    from omegaconf.errors import OmegaConfBaseException

    from orchestrator.errors import did_you_mean

    message = str(error)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return message
    detail = str(cause).splitlines()[0]
    lines = [message] if detail in message else [message, detail]
    keys = _keys_beside(cause)
    if keys and cause.key is not None and str(cause.key) not in keys:
        lines.append(f"choices at that place: {', '.join(keys)}.{did_you_mean(str(cause.key), keys)}")
    return "\n".join(lines)


def _keys_beside(error: OmegaConfBaseException) -> list[str]:
    """Keys that were possible where an unknown one was given; at the root those of `task` and `need` too."""
    if not _has_keys(error):
        return []
    nodes = [error.parent_node]
    if error.parent_node._get_parent() is None:
        nodes += [error.parent_node[name] for name in ("task", "need") if name in error.parent_node]
    return [str(key) for node in nodes for key in node]


def _has_keys(error: object) -> bool:
    from omegaconf import DictConfig

    node = getattr(error, "parent_node", None)
    return isinstance(node, DictConfig) and not node._is_none() and not node._is_missing()


def _complain(message: str) -> None:
    sys.stderr.write(f"orchestrate: {message}\n")
