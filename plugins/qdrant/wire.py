"""The connection to a Qdrant server through qdrant-client: made once, and its errors in words that help."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from orchestrator.errors import MalformedReplyError, PermanentError, RemoteError, TransientError
from orchestrator.services.loop import OnLoop
from orchestrator.services.remote import Patience, Remote
from orchestrator.services.replies import redacted, retry_after_s
from orchestrator.types import Call

from .options import ServerOptions

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

T = TypeVar("T")
Send: TypeAlias = "Callable[[AsyncQdrantClient], Awaitable[T]]"

_ATTEMPTS = 3
_WAIT_S = 0.5
"""Before the second attempt at most; doubled before the third."""
_AT_ONCE = 32
_NO_TIMEOUT_S = 86400
"""The client's own is per phase and of whole seconds; the core's deadline is around the whole request."""


class Wire:
    """Talks to one server. Safe to use from several threads.

    Args:
        server: where, with which key.
    """

    def __init__(self, server: ServerOptions) -> None:
        self.server = server
        self._again = Remote(server.url, Patience(server.timeout_s, _ATTEMPTS - 1, _AT_ONCE, _WAIT_S))
        self._once = Remote(server.url, Patience(server.timeout_s, 0, _AT_ONCE))
        self._client = OnLoop(server.url, self._made, lambda client: client.close())

    def connect(self) -> AsyncQdrantClient:
        """The client, made where there is none; nothing is sent yet. Not for the loop: the first import takes long."""
        self._client.load()
        return self._client.get()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def ask(self, what: str, send: Send[T], call: Call | None = None) -> T:
        """What the server answers; transient failures are tried again, twice.

        Args:
            what: is being done, for messages.
            send: the request, which may be repeated.
            call: how much time there is, and whether anybody still waits; None waits.

        Raises:
            TransientError: no answer, or an error of the server's own; names the URL, never the key.
            PermanentError: the server refuses the request.
            CallCancelledError: nobody waits for the call any more.
        """
        return self._run(self._again, what, send, call)

    def ask_once(self, what: str, send: Send[T]) -> T:
        """The same, where the request must not be repeated."""
        return self._run(self._once, what, send, None)

    def _run(self, remote: Remote, what: str, send: Send[T], call: Call | None) -> T:
        self.connect()
        (answer,) = remote.run([partial(self._answer, what, send)], call or Call())
        return answer

    async def _answer(self, what: str, send: Send[T]) -> T:
        try:
            return await send(self._client.get())
        except _failures() as error:
            raise self._told(what, error) from error

    def _made(self) -> AsyncQdrantClient:
        from qdrant_client import AsyncQdrantClient

        return AsyncQdrantClient(
            url=self.server.url,
            api_key=self.server.api_key,
            prefer_grpc=self.server.prefer_grpc,
            grpc_port=self.server.grpc_port,
            timeout=_NO_TIMEOUT_S,
            check_compatibility=False,  # it would ask and warn from a thread of its own
        )

    def _told(self, what: str, error: Exception) -> RemoteError:
        status = _status(error)
        # A proxy may echo what it was sent.
        detail = redacted(f"{what}: {_reason(error, status)}", self.server.api_key)
        if _is_transient(error, status):
            return TransientError(self.server.url, detail, status, _asked_s(error))
        if status is None:
            return MalformedReplyError(self.server.url, detail)
        return PermanentError(self.server.url, detail, status)


def _failures() -> tuple[type[Exception], ...]:
    from grpc import RpcError
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    # With an AssertionError the client meets an answer without a result.
    return ApiException, QdrantException, RpcError, json.JSONDecodeError, AssertionError


def _reason(error: Exception, status: int | None) -> str:
    from httpx import TransportError

    if status in (401, 403):
        variable = "the environment variable that it names, QDRANT_API_KEY where you named no other"
        return f"refused ({status}); expected api_key to hold a key of this server, from {variable}"
    if status is not None:
        return f"answered {status}: {_said(error)}"
    source = getattr(error, "source", error)
    if isinstance(source, TransportError):
        return f"connection failed ({str(source) or type(source).__name__}); is a Qdrant server there?"
    return f"{type(source).__name__}: {_said(source)}; is a Qdrant server there?"


def _status(error: Exception) -> int | None:
    """The HTTP status, that of gRPC in HTTP's terms, or None where there was no answer."""
    from grpc import RpcError

    if isinstance(error, RpcError):
        return _GRPC.get(error.code().name)
    status: int | None = getattr(error, "status_code", None)
    return 429 if hasattr(error, "retry_after_s") else status


_GRPC = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 503,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
}
"""As google/rpc/code.proto maps them; ABORTED, a conflict that passes, as 503. The others, UNAVAILABLE among them, tell
of no answer."""


def _said(error: Exception) -> str:
    """What Qdrant says about an error: `status.error` of its JSON, details of gRPC, or the first words of what came."""
    details = getattr(error, "details", None)
    if callable(details):
        return str(details())[:200]
    content: bytes = getattr(error, "content", str(error).encode())
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, LookupError, TypeError):
        return content[:200].decode(errors="replace").strip() or "nothing more"


def _is_transient(error: Exception, status: int | None) -> bool:
    """Whether another attempt may succeed: no answer, 408, 429, or an error of the server's own."""
    from grpc import RpcError
    from httpx import TransportError

    if status is not None:
        return status in (408, 429) or (status >= 500 and status != 501)
    return isinstance(error, RpcError) or isinstance(getattr(error, "source", None), TransportError)


def _asked_s(error: Exception) -> float | None:
    """Seconds that a 429 asks for."""
    asked = getattr(error, "retry_after_s", None)
    return None if asked is None else retry_after_s({"retry-after": str(asked)})
