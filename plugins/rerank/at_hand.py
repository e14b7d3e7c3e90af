"""The best of several reranks that this machine has the files for."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.errors import ConfigError
from orchestrator.log import get_logger
from orchestrator.stage import Rerank

log = get_logger()


def first_at_hand(choices: Mapping[str, Rerank]) -> Rerank:
    """The first of `choices` whose model lies on this machine; the last one when none does.

    A stage with no method `at_hand` needs no files and counts as at hand. Nothing is loaded and no hub is asked, so
    the same machine always gives the same stage; what was passed over is told in the log.

    Args:
        choices: name -> stage, the preferred one first.

    Raises:
        ConfigError: there are none.
    """
    if not choices:
        raise ConfigError("choices", "none; expected at least one rerank, the preferred one first")
    for name, stage in choices.items():
        if getattr(stage, "at_hand", lambda: True)():
            return stage
        log.info("rerank.not_at_hand", choice=name, model=getattr(getattr(stage, "model", None), "label", None))
    return list(choices.values())[-1]
