"""The command `orchestrate`. It turns words into a Hydra run, and every failure into one clean message.

Exit codes: 0; 2 for a configuration error, Hydra's own included; 1 for a run that failed; 130 for Ctrl-C. A sweep in
which a job failed: 1, or 2 when every job failed by its configuration.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator import interrupt
from orchestrator.config.failure import CONFIG_ERROR, failure_of

INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line `words` (default: this process's) and exit."""
    raise SystemExit(run(list(sys.argv[1:] if words is None else words)))


def run(words: list[str]) -> int:
    """Run one command line; returns the exit code."""
    interrupt.watch()
    asked = os.environ.get("HYDRA_FULL_ERROR")
    # Without it Hydra prints its own shortened trace and exits with 1 whatever went wrong.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        return _run_hydra(words, asked == "1")
    except KeyboardInterrupt:
        _complain("interrupted; indexes that were finished are kept, the others are as they were before")
        return INTERRUPTED
    except BrokenPipeError:  # `orchestrate ... | head`: whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        return (stop.code or 0) if isinstance(stop.code, int | None) else CONFIG_ERROR
    except Exception as error:
        if asked == "1":
            raise
        return _explain(error)
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        os.environ.update({} if asked is None else {"HYDRA_FULL_ERROR": asked})


def _run_hydra(words: list[str], full_errors: bool) -> int:
    import hydra

    from orchestrator.auto import decide_words
    from orchestrator.config import schema, searchpath
    from orchestrator.config.words import find_verbs, for_jobs_only, rewrite, rewrite_completion
    from orchestrator.sweeps import sweep
    from orchestrator.sweeps.sweeper import keep_going
    from orchestrator.sweeps.verb import Task

    schema.register()
    searchpath.register()
    sweep.forget()
    task = Task(full_errors)
    verbs = find_verbs([*_config_dirs(words), *(configs.folder for configs in searchpath.installed_configs())])
    if "COMP_LINE" in os.environ:
        os.environ["COMP_LINE"] = rewrite_completion(os.environ["COMP_LINE"], verbs)
    with tempfile.TemporaryDirectory(prefix="orchestrate-", ignore_cleanup_errors=True) as scratch:
        words, task.decision = decide_words(rewrite(words, verbs, scratch), _config_dirs(words))
        now, late = for_jobs_only(words)
        sys.argv = [sys.argv[0], *now]
        try:
            with keep_going(late):
                hydra.main(version_base="1.3", config_path="pkg://orchestrator.conf", config_name="config")(task)()
        except BaseException as error:
            sweep.conclude(interrupted=isinstance(error, KeyboardInterrupt))
            raise
        code = sweep.conclude()
    if task.failed:
        raise task.failed[0]
    return code


def _config_dirs(words: Sequence[str]) -> list[Path]:
    found = [after for word, after in itertools.pairwise(words) if word in ("--config-dir", "-cd")]
    found += [word.partition("=")[2] for word in words if word.startswith(("--config-dir=", "-cd="))]
    return [Path(folder) for folder in found]


def _explain(error: Exception) -> int:
    """Say on stderr what went wrong; returns the exit code."""
    failure = failure_of(error)
    _complain(failure.message)
    return failure.exit_code


def _complain(message: str) -> None:
    sys.stderr.write(f"orchestrate: {message}\n")
