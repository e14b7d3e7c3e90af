"""The connection to a Qdrant server through qdrant-client: made once, and its errors in words that help."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from orchestrator.errors import StageError
from orchestrator.log import get_logger

from .options import ServerOptions

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

log = get_logger()

T = TypeVar("T")

_ATTEMPTS = 3
_WAIT_S = 0.5
"""Before the second attempt of a write; doubled before the third."""


class Wire:
    """Talks to one server. Safe to use from several threads.

    Args:
        server: where, with which key.
    """

    def __init__(self, server: ServerOptions) -> None:
        self.server = server
        self._client: QdrantClient | None = None

    def connect(self) -> None:
        """Make the client; nothing is sent yet. Does nothing the second time."""
        if self._client is None:
            from qdrant_client import QdrantClient

            self._client = QdrantClient(
                url=self.server.url,
                api_key=self.server.api_key,
                prefer_grpc=self.server.prefer_grpc,
                grpc_port=self.server.grpc_port,
                timeout=self.server.timeout_s,  # type: ignore[arg-type]  # the client rounds it up by itself
                check_compatibility=False,  # it would ask and warn from a thread of its own
            )

    def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def read(self, what: str, ask: Callable[[QdrantClient], T], query_id: str | None = None) -> T:
        """What the server answers, asked once.

        Args:
            what: is being done, for messages.
            ask: the call.
            query_id: of the query being answered.

        Raises:
            StageError: no answer, or an error; names the URL, never the key.
        """
        self.connect()
        assert self._client is not None
        try:
            return ask(self._client)
        except _failures() as error:
            raise self._told(what, error, query_id) from error

    def write(self, what: str, send: Callable[[QdrantClient], T]) -> T:
        """What the server answers to a write that may be repeated; transient failures are tried again, twice.

        Raises:
            StageError: it failed for good.
        """
        for attempt in range(1, _ATTEMPTS):
            try:
                return self.read(what, send)
            except StageError as error:
                if not _is_transient(error.__cause__):
                    raise
                log.warning("qdrant.again", attempt=attempt, why=str(error))
                time.sleep(_WAIT_S * 2 ** (attempt - 1))
        return self.read(what, send)

    def _told(self, what: str, error: BaseException, query_id: str | None) -> StageError:
        message = f"{self.server.url}: {what}: {_reason(error, self.server.timeout_s)}"
        if self.server.api_key:  # a proxy may echo what it was sent
            message = message.replace(self.server.api_key, "***")
        return StageError("qdrant", query_id, message)


def _failures() -> tuple[type[Exception], ...]:
    from grpc import RpcError
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    return ApiException, QdrantException, RpcError, json.JSONDecodeError


def _reason(error: BaseException, timeout_s: float) -> str:
    from httpx import TimeoutException, TransportError

    status = _status(error)
    if status in (401, 403):
        return f"refused ({status}); expected api_key: ${{oc.env:QDRANT_API_KEY,null}} to hold a key of this server"
    if status is not None:
        return f"answered {status}: {_said(error)}"
    source = getattr(error, "source", error)
    if isinstance(source, TimeoutException):
        return f"no answer within {timeout_s:g} s (timeout_s)"
    if isinstance(source, TransportError):
        return f"connection failed ({str(source) or type(source).__name__}); is a Qdrant server there?"
    return f"{type(source).__name__}: {str(source)[:300]}; is a Qdrant server there?"


def _status(error: BaseException) -> int | None:
    """The HTTP status, or None where there was no answer."""
    status: int | None = getattr(error, "status_code", None)
    return 429 if hasattr(error, "retry_after_s") else status


def _said(error: BaseException) -> str:
    """What Qdrant says about an error: `status.error` of its JSON, or the first words of whatever came."""
    content: bytes = getattr(error, "content", str(error).encode())
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, LookupError, TypeError):
        return content[:200].decode(errors="replace").strip() or "nothing more"


def _is_transient(error: BaseException | None) -> bool:
    """Whether another attempt may succeed: no answer, 429, or an error of the server's own."""
    from grpc import RpcError, StatusCode
    from httpx import TransportError

    if isinstance(error, RpcError):
        return error.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
    status = None if error is None else _status(error)
    if status is not None:
        return status == 429 or status >= 500
    return isinstance(getattr(error, "source", None), TransportError)
