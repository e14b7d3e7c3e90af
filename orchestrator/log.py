"""Structured logs: events and key-values, to stderr. Results go to stdout, never through here."""

from __future__ import annotations

import logging
import sys
from functools import cached_property
from types import ModuleType
from typing import Any, Literal

Level = Literal["debug", "info", "warning", "error"]
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Logger:
    """Hands events to structlog as the program configured it; where nobody did, only warnings, to stderr.

    structlog's own default prints every event to stdout, where a library's user expects results.
    """

    def debug(self, event: str, **facts: object) -> None:
        """An event for whoever looks for a fault: one a stage and query."""
        if self._structlog.is_configured():
            self._structlog.get_logger().debug(event, **facts)

    def info(self, event: str, **facts: object) -> None:
        """An event worth a line in normal running."""
        if self._structlog.is_configured():
            self._structlog.get_logger().info(event, **facts)

    def warning(self, event: str, **facts: object) -> None:
        """An event that somebody should look at."""
        logger = self._structlog.get_logger()
        if not self._structlog.is_configured():
            stderr = self._structlog.PrintLogger(sys.stderr)
            logger = self._structlog.wrap_logger(stderr, processors=_processors(json=False))
        logger.warning(event, **facts)

    @cached_property
    def _structlog(self) -> ModuleType:
        import structlog

        return structlog


def get_logger() -> Logger:
    """The package's logger."""
    return Logger()


def configure(level: Level = "info", json: bool = False) -> None:
    """Send events of `level` and above to stderr, as readable lines or as JSON.

    Only the command line calls this; a program that uses the library keeps its own structlog configuration.
    """
    import structlog

    structlog.configure(
        processors=_processors(json),
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,  # a later configuration of the program's own counts
    )


def _processors(json: bool) -> list[Any]:
    import structlog

    render = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if json else "%H:%M:%S", utc=json),
        *([structlog.processors.format_exc_info] if json else []),
        render,
    ]
