"""What every rerank by a language model has: its keys in the YAML, their checks, and the connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from orchestrator.checks import check_choice, check_counts
from orchestrator.errors import ConfigError
from orchestrator.models import Model
from orchestrator.services.remote import Patience
from orchestrator.services.spending import Price, Purse, check_usd
from orchestrator.stage import Json
from orchestrator.storage import stable_hash
from orchestrator.types import Call, Document, Need

from ..estimate import estimated_tokens, fitting_characters, room_within, token_spans
from ..openai_client import OpenAIConnection
from .chat import LADDER, Chat, Structure

_MARKS_TOKENS = 25
"""Of the two marks around a document."""
_OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@dataclass(eq=False)
class LLMStage:
    """A language model behind `POST {base_url}/chat/completions`, its instructions and its limits.

    Args:
        model: card of a reranker; `name` is what the server calls the model, `max_length_tokens` its context, in which
            a request has to fit.
        instructions: by language, `system` and `user` with placeholders; each stage says which.
        prompt_language: which of them; another language than theirs takes the first.
        base_url: of the API, with its `/v1`; None is OpenAI's own.
        api_key: sent as a bearer token, or as `key_header` and `key_prefix` say; None sends none.
        key_variable: the environment variable of the key, for messages; the core fills it in from the YAML.
        key_header: header of the key: `api-key` for Azure.
        key_prefix: what stands before the key in it.
        extra_query: put after the address, for example `{api-version: 2024-10-21}`.
        structure: strictest way to ask for the reply: `json_schema`, `json_object` or `text`.
        max_document_tokens: where a document is cut, by estimate.
        max_output_tokens: of one reply, what a model thinks to itself included.
        max_tokens_key: `max_completion_tokens`, or `max_tokens` for older servers.
        temperature: None sends none; reasoning models refuse one.
        extra: sent as it is with every request; limits of the output and the number of answers have keys of their own.
        prices: table of prices by model name; None counts no money.
        usd_per_million_input_tokens: price; None is that of the table.
        usd_per_million_cached_input_tokens: price of input that the server still held; None is that of the table.
        usd_per_million_output_tokens: price; None is that of the table.
        max_usd: what this stage may spend for as long as it lives: one run, or the whole life of a server. Checked
            before each request with the dearest that it can become, see `Chat`. None is no limit.
        timeout_s: one attempt.
        retries: further attempts after a transient error.
        concurrency: requests in flight at once.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"text"})
    cacheable_scores: ClassVar[bool] = True
    is_remote: ClassVar[bool] = True
    optional_modules: ClassVar[Mapping[str, str]] = {"openai": "openai"}

    model: Model
    instructions: Mapping[str, Any]
    prompt_language: str = "en"
    base_url: str | None = None
    api_key: InitVar[str | None] = None
    key_variable: str | None = None
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    extra_query: Mapping[str, str] | None = None
    structure: Structure = "json_schema"
    max_document_tokens: int = 500
    max_output_tokens: int = 2000
    max_tokens_key: str = "max_completion_tokens"
    temperature: float | None = None
    extra: Mapping[str, Json] | None = None
    prices: Mapping[str, Mapping[str, Any]] | None = None
    usd_per_million_input_tokens: float | None = None
    usd_per_million_cached_input_tokens: float | None = None
    usd_per_million_output_tokens: float | None = None
    max_usd: float | None = None
    timeout_s: float = 60.0
    retries: int = 2
    concurrency: int = 8

    def __post_init__(self, api_key: str | None) -> None:
        if self.model.role != "reranker" or not self.model.name:
            found = f"found a {self.model.role} named {self.model.name!r}"
            raise ConfigError("name", f"{found}; expected a reranker with a name")
        check_choice("structure", self.structure, LADDER)
        check_counts(max_document_tokens=self.max_document_tokens, max_output_tokens=self.max_output_tokens)
        self._check_extra()
        patience = Patience(self.timeout_s, self.retries, self.concurrency)
        keys = (self.key_header, self.key_prefix, self.extra_query, self.key_variable)
        server = OpenAIConnection(self.model.name, self.base_url, api_key, patience, *keys)
        price = self._price()
        purse = Purse(server.remote.service, self.max_usd)
        extra = dict(self.extra or {})
        self.chat = Chat(server, price, purse, self.structure, self.max_tokens_key, self.temperature, extra)

    def _check_extra(self) -> None:
        """Refuse what would change how much an answer can cost without `max_usd` knowing of it."""
        for key in self.extra or {}:
            if key in (*_OUTPUT_LIMITS, self.max_tokens_key):
                raise ConfigError(f"extra.{key}", "limits the output; expected `max_output_tokens`, which says it once")
            if key == "n":
                raise ConfigError("extra.n", "asks for several answers, and one is read; leave it out")

    def _price(self) -> Price:
        check_usd(
            usd_per_million_input_tokens=self.usd_per_million_input_tokens,
            usd_per_million_cached_input_tokens=self.usd_per_million_cached_input_tokens,
            usd_per_million_output_tokens=self.usd_per_million_output_tokens,
        )
        price = Price.of(
            self.prices,
            self.model.name,
            input=self.usd_per_million_input_tokens,
            cached_input=self.usd_per_million_cached_input_tokens,
            output=self.usd_per_million_output_tokens,
        )
        if self.max_usd is not None and None in (price.input, price.output):
            keys = "usd_per_million_input_tokens and usd_per_million_output_tokens"
            raise ConfigError(
                "max_usd",
                f"needs both prices of '{self.model.name}', and `prices` has none: set {keys}, or max_usd=null",
            )
        return price

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the card; `multilingual` means any."""
        return self.model.languages

    @property
    def key_missing(self) -> str | None:
        """What is said where there is no key and one is wanted; else None."""
        return self.chat.server.key_missing

    def token_spans(self, text: str) -> npt.NDArray[np.int64]:
        """int64 [n_tokens, 2]: where each token of `text` begins and ends, by estimate."""
        return token_spans(text)

    def room(self, query: object) -> int | None:
        """Tokens that a document may have beside `query`: less than it is cut at, as an estimate's borders lie."""
        return room_within(self.max_document_tokens)

    def load(self) -> None:
        """Make the client; sends nothing. Does nothing the second time."""
        self.chat.server.load()

    def close(self) -> None:
        """Close the connections."""
        self.chat.server.close()

    def digest(self, prompt: Mapping[str, str], **more: Json) -> str:
        """Server, model, prompt, limits, structure and `more` in one digest. What the server changes is not seen."""
        server: dict[str, Json] = {"base_url": self.chat.server.base_url, "name": self.model.name}
        server |= {"query": self.chat.server.query, "structure": self.structure}
        limits: list[Json] = [self.max_document_tokens, self.max_output_tokens, self.temperature]
        return stable_hash(
            {**server, "prompt": dict(prompt), "limits": limits, "extra": dict(self.extra or {}), **more}
        )

    def check_context(self, prompt: Mapping[str, str], n_documents: int, n_written: int) -> None:
        """Refuse a context that the longest request does not fit in: some servers cut it, and say nothing.

        Args:
            prompt: the instructions.
            n_documents: of one request at most.
            n_written: tokens of the answer at most.

        Raises:
            ConfigError: the card says how long the context is, and it is too short.
        """
        context = self.model.max_length_tokens
        around = sum(map(estimated_tokens, prompt.values()))
        needed = around + n_documents * (self.max_document_tokens + _MARKS_TOKENS) + n_written
        if context is not None and needed > context:
            shown = f"{n_documents} document(s) of {self.max_document_tokens} tokens with instructions and answer"
            advice = "lower max_document_tokens or max_output_tokens" + (", or the window" if n_documents > 1 else "")
            raise ConfigError("max_length_tokens", f"found {context}; {shown} need some {needed}: {advice}")

    def shown_text(self, document: Document, call: Call) -> str:
        """What the model is shown of a document; a cut is declared."""
        text = document.full_text
        kept = text[: fitting_characters(text, self.max_document_tokens)]
        if len(kept) < len(text):
            call.note(f"documents cut to an estimated {self.max_document_tokens} tokens")
        return kept

    def declare_price(self, call: Call) -> None:
        """Say where money should have been counted and no price is known."""
        if self.prices is not None and not self.chat.price.known:
            call.note(f"no money is counted: `prices` knows no model '{self.model.name}'")


def in_language(instructions: Mapping[str, Any], language: str) -> dict[str, str]:
    """The instructions in `language`, `zh-Hans` being `zh`; where there are none, the first."""
    return dict(instructions.get(language.split("-")[0]) or next(iter(instructions.values())))
