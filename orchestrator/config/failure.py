"""What went wrong, in the words of a message and as an exit code."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from orchestrator.errors import ConfigError, OrchestratorError, did_you_mean

if TYPE_CHECKING:
    from omegaconf.errors import OmegaConfBaseException

RUN_ERROR, CONFIG_ERROR = 1, 2


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure as a user is told of it.

    Attributes:
        message: what was found, what was expected, the choices; the first line stands alone.
        exit_code: 2 for a configuration error, Hydra's own included; 1 for everything else.
        trace: where it happened, for errors that look like a bug; empty for those raised on purpose.
    """

    message: str
    exit_code: int
    trace: str = ""

    @property
    def reason(self) -> str:
        """The message on one line: its first one, and the second where the first only announces it."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        announced = lines and (lines[0].endswith(":") or lines[0].startswith("Error merging override"))
        return " ".join(lines[:2]) if announced else (lines or ["unknown"])[0]


def failure_of(error: BaseException) -> Failure:
    """`error` as a Failure."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OrchestratorError):
        return Failure(str(error), CONFIG_ERROR if isinstance(error, ConfigError) else RUN_ERROR)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return Failure(_hydra_message(error), CONFIG_ERROR)
    trace = "".join(traceback.format_exception(error))
    return Failure(f"{type(error).__name__}: {error}\nThis looks like a bug; {_HOW}", RUN_ERROR, trace)


_NO_MAP = re.compile(r"\w+ is not a subclass of (?P<name>\w+)Schema\. value: (?P<value>.*)")
"""What OmegaConf says of a bare value where the schema has a map with keys of its own."""
_HOW = "HYDRA_FULL_ERROR=1 shows where it happened."


def _hydra_message(error: Exception) -> str:
    """Hydra's message, with the keys that were possible where an unknown one was given."""
    from omegaconf.errors import OmegaConfBaseException

    message = str(error)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return message
    detail = str(cause).splitlines()[0]
    lines = [message] if detail in message else [message, detail]
    keys = _keys_beside(cause)
    lines += _map_expected(detail)
    if keys and cause.key is not None and str(cause.key) not in keys:
        lines.append(f"choices at that place: {', '.join(keys)}.{did_you_mean(str(cause.key), keys)}")
    return "\n".join(lines)


def _map_expected(detail: str) -> list[str]:
    """What a bare value is told that stands where a map belongs: `cut: gap` for `cut: {how: gap}`."""
    from orchestrator.config import schema

    found = _NO_MAP.search(detail)
    shape = getattr(schema, f"{found['name']}Schema", None) if found else None
    if found is None or shape is None:
        return []
    keys = [field.name for field in fields(shape)]
    key, value = found["name"].lower(), found["value"]
    example = f"; for example {key}: {{how: {value}}}" if "how" in keys else ""
    return [f"{key}: found {value}; expected a map with keys of {', '.join(keys)}{example}"]


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
