"""A connection to a server that speaks OpenAI's API: theirs, or vLLM, Ollama, LM Studio and many others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ConfigError, MissingExtraError, RemoteError, TransientError
from orchestrator.services.loop import OnLoop
from orchestrator.services.remote import Patience, Remote, address, checked_url
from orchestrator.services.replies import json_reply, lacking, missing_key, status_error

from .tls import trusted

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
_BEARER = ("Authorization", "Bearer ")


class OpenAIConnection:
    """One server and one model on it. The client library makes no retries: those are the core's.

    Args:
        model: name of the model, as the server knows it.
        base_url: of the API, with its `/v1`; None is OpenAI's own.
        api_key: sent as a bearer token, or None to send none.
        patience: how long the server is waited for.
        key_header: header of the key: `api-key` for Azure.
        key_prefix: what stands before the key in it.
        query: put after the address of every request: Azure's older deployments want an `api-version`.
        key_variable: the environment variable of the key, for messages.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        api_key: str | None,
        patience: Patience,
        key_header: str = _BEARER[0],
        key_prefix: str = _BEARER[1],
        query: Mapping[str, str] | None = None,
        key_variable: str | None = None,
    ) -> None:
        self.model = model
        self.base_url = checked_url(base_url or OPENAI_URL)
        self.remote = Remote(f"{model} at {address(self.base_url)}", patience)
        self._api_key = api_key or None
        self._key_header, self._key_prefix = key_header, key_prefix
        self.query = {name: str(value) for name, value in (query or {}).items()}
        self._key_variable = key_variable
        self._client = OnLoop(self.remote.service, self._made, lambda client: client.close())

    @property
    def key_missing(self) -> str | None:
        """What is said where there is no key and one is wanted, at OpenAI's own address; else None."""
        if self._api_key is None and self.base_url == OPENAI_URL:
            return missing_key(address(OPENAI_URL), self._key_variable or "OPENAI_API_KEY").detail
        return None

    @property
    def client(self) -> AsyncOpenAI:
        """The library's client. Lives on the core's event loop."""
        return self._client.get()

    @property
    def headers(self) -> dict[str, Any]:
        """What a request gives as `extra_headers`: the key where it is no bearer token, or that there is none."""
        from openai import Omit

        if self._api_key and (self._key_header, self._key_prefix) == _BEARER:
            return {}
        own = {self._key_header: f"{self._key_prefix}{self._api_key}"} if self._api_key else {}
        return {"Authorization": Omit(), **own}

    def load(self) -> None:
        """Make the client; sends nothing. Does nothing the second time.

        Raises:
            MissingExtraError: openai is not installed.
            ConfigError: OpenAI's own address without a key.
        """
        if self.key_missing:
            raise ConfigError("api_key", self.key_missing)
        self._client.load()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _made(self) -> AsyncOpenAI:
        try:
            import openai
        except ModuleNotFoundError as error:
            raise MissingExtraError("openai", "openai") from error
        client = openai.AsyncOpenAI(
            api_key=self._api_key or "none",  # with None it would take OPENAI_API_KEY, for whatever server this is
            base_url=self.base_url,
            default_query=self.query or None,
            http_client=openai.DefaultAsyncHttpxClient(verify=trusted()),
            max_retries=0,
            timeout=None,  # the core's deadline is around the whole call
        )
        _ = client.chat.completions, client.embeddings  # imported late: 0.2 s that belong to no query
        return client

    async def ask(self, send: Callable[[], Awaitable[httpx2.Response]]) -> Any:
        """The JSON of one answer.

        Args:
            send: makes the request with the library's client, and gives the response as it came.

        Raises:
            TransientError: no connection, 429 or 5xx.
            PermanentError: any other status, or no JSON.
        """
        import openai

        service = self.remote.service
        try:
            response = await send()
        except openai.APIStatusError as error:
            found = error.response
            # Not chained: the library's message quotes the answer, in which a service may echo the key.
            told = (found.status_code, found.text, found.headers)
            raise status_error(service, *told, self._api_key, self._key_variable) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise TransientError(service, f"no connection ({type(cause).__name__}: {cause})") from error
        return json_reply(service, response.text, self._api_key)

    def lacks(self, key: str, reply: Any) -> RemoteError:
        """The error that a 2xx reply without `key` stands for; some servers answer 200 where they mean another."""
        return lacking(self.remote.service, key, reply, self._api_key)
