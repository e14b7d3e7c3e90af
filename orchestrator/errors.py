"""Every error the package raises on purpose.

OrchestratorError
├─ ConfigError(path)              a YAML value is wrong
│  └─ PipelineError               a graph is wrong: cycle, unknown input, no `_target_`
├─ DataError(source, line)        a file of the user's is wrong
├─ IndexStateError                an index is missing, damaged, or built with other settings
├─ ModelNotFoundError(name)       weights are at none of the places looked in
├─ MissingExtraError(extra)       pip install 'rerank-orchestrator[extra]'
├─ CallCancelledError             a call was stopped because nobody waits for it any more
├─ RemoteError(service, status)   a remote model gave no answer that can be used
│  ├─ TransientError              no connection, no answer in time, 429, 5xx: trying again may help
│  │  ├─ OutOfTimeError           the time that was left for the call ended first
│  │  ├─ MalformedReplyError      an answer came, and nothing can be taken from it; not tried again at once
│  │  └─ CircuitOpenError         not asked: it failed again and again, and is left alone for a while
│  └─ PermanentError              key, request or reply is wrong: trying again does not help
└─ StageError(stage, query_id)    a stage failed while loading or running; the cause is chained

A message starts with where (YAML path, or file and line), then what was found, what was expected, and the choices.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence


class OrchestratorError(Exception):
    """Base of all errors raised on purpose, so that one `except` catches them."""


class ConfigError(OrchestratorError):
    """A configuration value is wrong.

    Attributes:
        path: dotted YAML path of the value, for example `pipeline.stages.fused.inputs[1]`; a stage's own class gives
            the path below its `use`, and the core puts the rest before it.
        detail: the message without the path.
    """

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        self.detail = message
        super().__init__(f"{path}: {message}" if path else message)


class PipelineError(ConfigError):
    """A pipeline does not form a stage graph that can run."""


class DataError(OrchestratorError):
    """A line or file of the user's data cannot be read.

    Attributes:
        source: the file.
        line: 1-based line number, or None when the whole file is meant.
    """

    def __init__(self, source: str, line: int | None, message: str) -> None:
        self.source = source
        self.line = line
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {message}")


class IndexStateError(OrchestratorError):
    """An index is missing, damaged, or was built with other settings."""


class ModelNotFoundError(OrchestratorError):
    """Model files are at none of the places looked in.

    Attributes:
        name: the model's hub name or path.
        looked_in: one line per place, in the order tried.
    """

    def __init__(self, name: str, looked_in: Sequence[str], choices: Sequence[str]) -> None:
        self.name = name
        self.looked_in = tuple(looked_in)
        lines = [f"model '{name}' was not found", "looked in:"]
        lines += [f"  - {place}" for place in looked_in]
        lines += ["choices:"] + [f"  - {choice}" for choice in choices]
        super().__init__("\n".join(lines))


class MissingExtraError(OrchestratorError):
    """An optional dependency is not installed.

    Attributes:
        extra: the extra of this package that installs it.
    """

    def __init__(self, extra: str, module: str) -> None:
        self.extra = extra
        self.module = module
        super().__init__(f"module '{module}' is not installed: pip install 'rerank-orchestrator[{extra}]'")


class CallCancelledError(OrchestratorError):
    """A stage stopped early because nobody waits for its call any more."""


class RemoteError(OrchestratorError):
    """A remote model gave no answer that can be used. One of the two below is raised.

    Attributes:
        service: what was called: model and address, never a key.
        detail: the message without the service.
        status: HTTP status of the answer, or None when there was none or the trouble is elsewhere.
    """

    def __init__(self, service: str, detail: str, status: int | None = None) -> None:
        self.service = service
        self.detail = detail
        self.status = status
        super().__init__(f"{service}: {detail}")


class TransientError(RemoteError):
    """Nothing is known to be wrong with the request: no connection, no answer in time, 429, 5xx.

    Attributes:
        retry_after_s: how long the service asks to be left alone, or None.
    """

    def __init__(
        self, service: str, detail: str, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(service, detail, status)


class OutOfTimeError(TransientError):
    """The time that was left for a call ended before its answers were there. Another call may have more.

    Attributes:
        had_s: how long the call could wait.
        answered: how many of its requests were answered by then.
    """

    def __init__(self, service: str, had_s: float, answered: int = 0, of: int = 1) -> None:
        self.had_s = had_s
        self.answered = answered
        some = f" ({answered} of {of} requests were answered)" if answered else ""
        super().__init__(service, f"no answer within the {round(had_s, 2):g} s that were left for this call{some}")


class MalformedReplyError(TransientError):
    """The service answered well, and what it said is not what was asked for: no JSON, other documents, no number.

    Asking again at once would be answered, and billed, the same; the next question may find it mended. So a question
    may go on without it, as with a service that is down, and nothing of the reply is used.
    """


class CircuitOpenError(TransientError):
    """The service was not asked: it failed again and again, and is left alone until its next trial.

    Attributes:
        reason: of the last failure.
        open_for_s: how long it has been left alone.
        next_in_s: when it is tried next, which is also `retry_after_s`; 0 while another call is trying it.
    """

    def __init__(self, service: str, reason: str, open_for_s: float, next_in_s: float) -> None:
        self.reason = reason
        self.open_for_s = open_for_s
        self.next_in_s = next_in_s
        then = f"in {next_in_s:.1f} s" if next_in_s > 0 else "now, by another call"
        detail = f"not asked: left alone for {open_for_s:.1f} s now, as it failed again and again; tried next {then}"
        super().__init__(service, f"{detail}. The last failure: {reason}", retry_after_s=next_in_s)


class PermanentError(RemoteError):
    """The key, the address, the request or the reply is wrong; the message says what to do."""


class StageError(OrchestratorError):
    """A stage failed while it ran. The cause, where there is one, is chained.

    Attributes:
        stage: the stage's name in the pipeline.
        query_id: the query being answered, or None when the stage was loading or working on several.
        detail: the message without the two.
    """

    def __init__(self, stage: str, query_id: str | None, message: str) -> None:
        self.stage = stage
        self.query_id = query_id
        self.detail = message
        where = f"stage '{stage}'" + (f", query '{query_id}'" if query_id is not None else "")
        super().__init__(f"{where}: {message}")


@contextlib.contextmanager
def named(stage: str, query_id: str | None = None) -> Iterator[None]:
    """What a plugin raises, which does not know what its stage is called, as an error with the name in the pipeline."""
    try:
        yield
    except RemoteError as error:
        raise StageError(stage, query_id, str(error)) from error
    except StageError as error:
        if error.stage == stage:
            raise
        raise StageError(stage, error.query_id, error.detail) from error


@contextlib.contextmanager
def naming(stage: str, query_id: str | None) -> Iterator[None]:
    """Whatever a running stage raises, as an error that names stage and query; one that names a place stays."""
    try:
        with named(stage, query_id):
            yield
    except OrchestratorError:
        raise
    except Exception as error:
        raise StageError(stage, query_id, f"{type(error).__name__}: {error}") from error


def check_ms(path: str, value: object) -> None:
    """Refuse a time that is none.

    Raises:
        ConfigError: it is no finite number of milliseconds above 0; None is no limit.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(path, f"found {value!r}; expected a number of milliseconds above 0, or null for no limit")


def did_you_mean(found: str, choices: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of `choices`, or an empty string when none is close."""
    close = difflib.get_close_matches(found, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
