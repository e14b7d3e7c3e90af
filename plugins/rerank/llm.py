"""A language model behind OpenAI's API reads a window of documents together and says which comes first."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from orchestrator.errors import ConfigError, PermanentError, RemoteError, did_you_mean
from orchestrator.log import get_logger
from orchestrator.models import Model
from orchestrator.remote import Patience
from orchestrator.replies import count_at, find
from orchestrator.stage import Json
from orchestrator.storage import stable_hash
from orchestrator.types import Call, Document, Need, Query, ScoreKind

from ..openai_client import OpenAIConnection, estimated_tokens, fitting_characters
from .llm_prompt import check_instructions, messages
from .llm_reply import SCHEMA, read_order

log = get_logger()

Messages: TypeAlias = Sequence[Mapping[str, str]]
Structure = Literal["json_schema", "json_object", "text"]
LADDER: Sequence[Structure] = get_args(Structure)
"""How a reply is asked for, strictest first: a server that does not know one is asked with the next."""


class LLMRerank:
    """A `WindowRerank` on `POST {base_url}/chat/completions`.

    A reply that leaves documents out, names one twice or cannot be read costs no query: the rest keeps its incoming
    order, and the trace counts the repairs. Documents stand between marks that their own text cannot forge.

    Args:
        model: card of a reranker; `name` is what the server calls the model.
        instructions: language -> `system` and `user`, in which `{query}`, `{documents}` and `{n}` are filled in.
        prompt_language: which of them; another language than theirs takes the first.
        base_url: of the API, with its `/v1`; None is OpenAI's own.
        api_key: sent as a bearer token; None sends none.
        window: documents of one request.
        stride: how far the window moves on a longer list.
        structure: strictest way to ask for the reply: `json_schema`, `json_object` or `text`.
        max_document_tokens: where a document is cut, by estimate.
        max_output_tokens: of one reply, what a model thinks to itself included.
        max_tokens_key: `max_completion_tokens`, or `max_tokens` for older servers.
        temperature: None sends none; reasoning models refuse one.
        extra: sent as it is with every request.
        usd_per_million_input_tokens: price; None counts no money.
        usd_per_million_output_tokens: price; None counts no money.
        max_usd: what this stage may spend until the process ends; checked before each request with the dearest that it
            can become. None is no limit.
        timeout_s: one attempt.
        retries: further attempts after a transient error.
        concurrency: requests in flight at once.
    """

    score_kind: ScoreKind = "rank"
    needs: frozenset[Need] = frozenset({"text"})

    def __init__(
        self,
        model: Model,
        instructions: Mapping[str, Mapping[str, str]],
        prompt_language: str = "en",
        base_url: str | None = None,
        api_key: str | None = None,
        window: int = 20,
        stride: int = 10,
        structure: Structure = "json_schema",
        max_document_tokens: int = 500,
        max_output_tokens: int = 2000,
        max_tokens_key: str = "max_completion_tokens",
        temperature: float | None = None,
        extra: Mapping[str, Json] | None = None,
        usd_per_million_input_tokens: float | None = None,
        usd_per_million_output_tokens: float | None = None,
        max_usd: float | None = None,
        timeout_s: float = 60.0,
        retries: int = 2,
        concurrency: int = 8,
    ) -> None:
        if model.role != "reranker" or not model.name:
            raise ConfigError("name", f"found a {model.role} named {model.name!r}; expected a reranker with a name")
        if structure not in LADDER:
            hint = did_you_mean(str(structure), LADDER)
            raise ConfigError("structure", f"found '{structure}'; choices: {', '.join(LADDER)}.{hint}")
        if not 1 <= stride <= window:
            raise ConfigError("stride", f"found {stride} with window={window}; expected 1 to the window")
        for name, value in (("max_document_tokens", max_document_tokens), ("max_output_tokens", max_output_tokens)):
            if value < 1:
                raise ConfigError(name, f"found {value}; expected a number from 1")
        prices = (usd_per_million_input_tokens, usd_per_million_output_tokens)
        if max_usd is not None and None in prices:
            raise ConfigError("max_usd", "needs both prices, of input and of output tokens")
        check_instructions(instructions)
        self.model = model
        self.window, self.stride = window, stride
        self.max_document_tokens, self.max_output_tokens = max_document_tokens, max_output_tokens
        self.max_tokens_key = max_tokens_key
        self.temperature = temperature
        self.extra = dict(extra or {})
        chosen = prompt_language.split("-")[0]
        self.prompt = dict(instructions.get(chosen) or next(iter(instructions.values())))
        self._prices = tuple((price or 0.0) / 1e6 for price in prices)
        self._purse = _Purse(max_usd)
        self._structure = structure
        self._server = OpenAIConnection(model.name, base_url, api_key, Patience(timeout_s, retries, concurrency))

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the card; `multilingual` means any."""
        return self.model.languages

    @property
    def model_id(self) -> str:
        """Server, model, prompt and limits in one digest. What the server changes is not seen."""
        settings: dict[str, Json] = {"base_url": self._server.base_url, "name": self.model.name, "prompt": self.prompt}
        limits: list[Json] = [self.max_document_tokens, self.max_output_tokens, self.temperature]
        return stable_hash({**settings, "limits": limits, "extra": self.extra})

    def load(self) -> None:
        """Make the client; sends nothing. Does nothing the second time."""
        self._server.load()

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def order(self, query: Query, documents: Sequence[Document], call: Call) -> Sequence[int]:
        """Places in `documents`, best first.

        Raises:
            RemoteError: the server gave no answer, or the answer could cost more than is left of `max_usd`.
            CallCancelledError: nobody waits for the call any more.
        """
        if len(documents) < 2:
            return range(len(documents))
        texts = [document.full_text for document in documents]
        cut = [text[: fitting_characters(text, self.max_document_tokens)] for text in texts]
        asked = messages(self.prompt, query.text, cut)
        (reply,) = self._server.remote.run([partial(self._ask, asked, call)], call)
        choice = reply["choices"][0]
        content = find(choice, "message.content") or ""
        complete = find(choice, "finish_reason") != "length"
        places, repairs = read_order(str(content), len(documents), complete=complete)
        if repairs < 0:
            call.note(f"{self.model.name} gave no ranking ({_why(choice)}); the incoming order was kept")
        elif not complete:
            call.note(f"a reply was cut off at max_output_tokens={self.max_output_tokens}")
        call.count(repairs=abs(repairs))
        return places

    async def _ask(self, asked: Messages, call: Call) -> Any:
        """One reply, with the strictest structure that the server knows."""
        while True:
            structure = self._structure
            try:
                return await self._request(asked, structure, call)
            except PermanentError as error:
                if structure == LADDER[-1] or not _knows_no_structure(error):
                    raise
                self._structure = LADDER[LADDER.index(structure) + 1]
                log.info("llm.structure", service=self._server.remote.service, refused=structure, next=self._structure)

    async def _request(self, asked: Messages, structure: Structure, call: Call) -> Any:
        at_most = self._usd(sum(estimated_tokens(message["content"]) for message in asked), self.max_output_tokens)
        if not self._purse.take(at_most):
            raise PermanentError(self._server.remote.service, self._purse.refusal(at_most))
        spent = at_most  # a request that ends without an answer may have been paid for
        try:
            reply = await self._server.ask(partial(self._send, asked, structure))
            used = (count_at(reply, "usage.prompt_tokens"), count_at(reply, "usage.completion_tokens"))
            spent = self._usd(*used) if any(used) else at_most
            call.count(tokens=int(sum(used)), cost_usd=spent)
        except RemoteError as error:
            spent = at_most if error.status is None else 0.0  # an answer of 4xx or 5xx is not billed
            raise
        finally:
            self._purse.put_back(at_most - spent)
        if not isinstance(find(reply, "choices"), list) or not reply["choices"]:
            raise PermanentError(self._server.remote.service, "the reply has no `choices`; check `base_url`")
        return reply

    async def _send(self, asked: Messages, structure: Structure) -> Any:
        body: dict[str, Any] = {self.max_tokens_key: self.max_output_tokens, **self.extra}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if structure == "json_schema":
            schema = {"name": "ranking", "strict": True, "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif structure == "json_object":
            body["response_format"] = {"type": "json_object"}
        raw = await self._server.client.chat.completions.with_raw_response.create(
            model=self._server.model,
            messages=asked,  # type: ignore[arg-type]
            extra_body=body,
            extra_headers=self._server.headers,
        )
        return raw.http_response

    def _usd(self, input_tokens: float, output_tokens: float) -> float:
        return input_tokens * self._prices[0] + output_tokens * self._prices[1]


class _Purse:
    """Money that several threads spend together, each taking the most it can need before it knows what it needs."""

    def __init__(self, limit_usd: float | None) -> None:
        self._limit = limit_usd
        self._spent = 0.0
        self._lock = threading.Lock()

    def take(self, usd: float) -> bool:
        with self._lock:
            if self._limit is not None and self._spent + usd > self._limit:
                return False
            self._spent += usd
            return True

    def put_back(self, usd: float) -> None:
        with self._lock:
            self._spent -= usd

    def refusal(self, usd: float) -> str:
        left = max(0.0, (self._limit or 0.0) - self._spent)
        found = f"not asked: the request can cost ${usd:.4f}, and ${left:.4f} is left of max_usd=${self._limit:g}"
        return f"{found}. Raise max_usd, or send fewer or shorter documents"


def _knows_no_structure(error: PermanentError) -> bool:
    said = error.detail.lower()
    return error.status in (400, 422) and any(
        word in said for word in ("response_format", "json_schema", "json_object")
    )


def _why(choice: Any) -> str:
    if find(choice, "message.refusal"):
        return "it refused"
    return f"finish_reason {find(choice, 'finish_reason')}" if find(choice, "message.content") else "an empty reply"
