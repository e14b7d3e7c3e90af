"""One question to a language model and its answer: how strictly a reply is asked for, tokens, money, refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from orchestrator.errors import PermanentError
from orchestrator.log import get_logger
from orchestrator.services.replies import count_at, find
from orchestrator.services.spending import Pay, Price, Purse
from orchestrator.stage import Json
from orchestrator.types import Call

from ..estimate import estimated_tokens, fewest_tokens, most_tokens
from ..openai_client import OpenAIConnection

log = get_logger()

Messages: TypeAlias = Sequence[Mapping[str, str]]
Structure = Literal["json_schema", "json_object", "text"]
LADDER: Sequence[Structure] = get_args(Structure)
"""How a reply is asked for, strictest first: a server that does not know one is asked with the next."""

_OF_STRUCTURE = (
    "response_format",
    "json_schema",
    "json_object",
    "json schema",
    "structured output",
    "guided",
    "grammar",
)
_FRAME_TOKENS = 100
"""What a server may put around one message: marks of roles, a preamble of its own."""
_FILTERED = ("content management policy", "content_filter")
"""What Azure says, with status 400, when its filter does not let a prompt through: a refusal, and no bad request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    Attributes:
        content: its text; may be empty.
        finish: why it ended: `stop`, `length`, `content_filter`.
        refused: whether the model, or a filter before it, would not answer.
        logprobs: of its tokens, as the server gave them.
    """

    content: str
    finish: str = "stop"
    refused: bool = False
    logprobs: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, choice: Any) -> Answer:
        """The answer in one element of a reply's `choices`."""
        content, finish = _text(find(choice, "message.content")), str(find(choice, "finish_reason") or "stop")
        refused = bool(find(choice, "message.refusal")) or (finish == "content_filter" and not content)
        return cls(content, finish, refused, find(choice, "logprobs"))

    @property
    def complete(self) -> bool:
        """Whether nothing was cut off, at the limit of tokens or by a filter."""
        return self.finish not in ("length", "content_filter")

    @property
    def trouble(self) -> str | None:
        """`refusal`, `truncated` or `empty`, where there is nothing to read."""
        if self.refused:
            return "refusal"
        if not self.content.strip():
            return "empty" if self.complete else "truncated"
        return None


@dataclass(slots=True)
class Chat:
    """A chat model on one server.

    The dearest that a request can become: a token for each byte of its messages and of what is sent beside them, the
    schema of the answer among it; a fixed number around each message; and all the output that is allowed.

    Attributes:
        server: the connection.
        price: of the model.
        purse: what may be spent; each request sets its dearest aside.
        structure: strictest way to ask for a reply that the server is known to understand; falls and never rises.
        max_tokens_key: `max_completion_tokens`, or `max_tokens` for older servers.
        temperature: None sends none.
        extra: sent as it is with every request.
    """

    server: OpenAIConnection
    price: Price
    purse: Purse
    structure: Structure = LADDER[0]
    max_tokens_key: str = "max_completion_tokens"
    temperature: float | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)

    async def ask(
        self,
        messages: Messages,
        call: Call,
        max_tokens: int,
        schema: Mapping[str, Any] | None = None,
        more: Mapping[str, Json] | None = None,
    ) -> Answer:
        """One answer.

        Args:
            messages: what the model is shown.
            call: where tokens and money are counted.
            max_tokens: of the answer at most, what the model thinks to itself included.
            schema: JSON schema of the answer, with a `title`; asked for as strictly as the server allows.
            more: sent with this request.

        Raises:
            TransientError: no connection, no answer in time, 429 or 5xx.
            PermanentError: any other status, a reply of another shape, or no money left.
        """
        while True:
            structure = self.structure
            body = {self.max_tokens_key: max_tokens, **self.extra, **(more or {})}
            if self.temperature is not None:
                body["temperature"] = self.temperature
            if schema is not None and structure != "text":
                body["response_format"] = _response_format(structure, schema)
            try:
                return await self._request(messages, body, call, max_tokens)
            except PermanentError as error:
                if _says(error, _FILTERED):
                    return Answer("", "content_filter", refused=True)
                if "response_format" not in body or not _says(error, _OF_STRUCTURE):
                    raise
                self._ask_more_simply(structure)

    def _ask_more_simply(self, refused: Structure) -> None:
        simpler = LADDER.index(refused) + 1
        if simpler > LADDER.index(self.structure):  # else a request beside this one has found that out already
            self.structure = LADDER[simpler]
            service = self.server.remote.service
            log.info("llm.structure", service=service, refused=refused, next=self.structure)

    async def _request(self, messages: Messages, body: Mapping[str, Any], call: Call, max_tokens: int) -> Answer:
        shown = "".join(message["content"] for message in messages)
        with self.purse.reserved(self._dearest(shown, len(messages), body, max_tokens)) as pay:
            reply = await self.server.ask(partial(self._send, messages, body))
            choices = find(reply, "choices")
            if not isinstance(choices, list) or not choices:
                raise self.server.lacks("choices", reply)
            answer = Answer.of(choices[0])
            self._settle(reply, shown, answer.content, pay, call)
        return answer

    def _dearest(self, shown: str, n_messages: int, body: Mapping[str, Any], max_tokens: int) -> float:
        """US dollars."""
        if not self.purse.limited:
            return 0.0
        beside = json.dumps(body, ensure_ascii=False)
        sent = most_tokens(shown) + most_tokens(beside) + n_messages * _FRAME_TOKENS
        return self.price.usd(input=sent, output=max_tokens)

    async def _send(self, messages: Messages, body: Mapping[str, Any]) -> Any:
        raw = await self.server.client.chat.completions.with_raw_response.create(
            model=self.server.model,
            messages=messages,  # type: ignore[arg-type]
            extra_body=body,
            extra_headers=self.server.headers,
        )
        return raw.http_response

    def _settle(self, reply: Any, shown: str, content: str, pay: Pay, call: Call) -> None:
        """Count tokens and money: as the server tells them, or by estimate and marked so.

        Untold, the purse keeps all that was set aside: what a model thinks to itself is not seen in its answer.
        """
        sent = count_at(reply, "usage.prompt_tokens")
        # Some servers count what a model thinks to itself in the total alone, and bill it as output.
        written = max(count_at(reply, "usage.completion_tokens"), count_at(reply, "usage.total_tokens") - sent)
        held = min(sent, count_at(reply, "usage.prompt_tokens_details.cached_tokens", "usage.prompt_cache_hit_tokens"))
        told = sent > 0 and (written > 0 or not content)
        if not told:
            sent, written = estimated_tokens(shown), estimated_tokens(content)
            call.note(f"{self.server.model} tells no usage: tokens and money are an estimate")
        elif sent < fewest_tokens(shown):  # Ollama cuts a prompt that is longer than its context, and says nothing
            call.note(
                f"{self.server.model} read {sent:.0f} tokens of a longer prompt: is the server's context too short?"
            )
        cost_usd = self.price.usd(input=sent, cached=held, output=written)
        call.count(tokens=int(sent + written), cost_usd=cost_usd)
        if told:
            pay(cost_usd)


def _response_format(structure: Structure, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if structure == "json_object":
        return {"type": "json_object"}
    named = {"name": schema["title"], "strict": True, "schema": dict(schema)}
    return {"type": "json_schema", "json_schema": named}


def _says(error: PermanentError, words: Sequence[str]) -> bool:
    """Whether the server refused the request (400 or 422) and spoke of one of these."""
    said = error.detail.lower()
    return error.status in (400, 422) and any(word in said for word in words)


def _text(content: Any) -> str:
    """The content of a message: a string, or a list of parts of which those with text are joined."""
    if isinstance(content, list):
        return "".join(str(find(part, "text") or "") for part in content)
    return content if isinstance(content, str) else ""
