"""Embeddings from a server that speaks OpenAI's API."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from orchestrator.checks import check_choice, check_counts, check_counts_or_null
from orchestrator.errors import ConfigError, MalformedReplyError
from orchestrator.models import Model
from orchestrator.services.remote import Patience, split
from orchestrator.services.replies import count_at
from orchestrator.services.spending import Price, check_usd
from orchestrator.storage import stable_hash
from orchestrator.types import Call, TextKind, Vectors

from ..estimate import fitting_characters
from ..openai_client import OpenAIConnection

Encoding = Literal["base64", "float"]
Similarity = Literal["cosine", "dot"]
_KINDS: tuple[TextKind, ...] = ("query", "document")


class OpenAIEmbed:
    """An `Embed` on `POST {base_url}/embeddings`.

    Vectors belong to their texts by the `index` of the reply. An empty text is sent as one space, since OpenAI refuses
    empty ones; a text that is estimated to be longer than the card's `max_length_tokens` is cut there.

    Args:
        model: card of an embedder; `name` is what the server calls the model, `prompts` go before the texts.
        base_url: of the API, with its `/v1`; None is OpenAI's own.
        api_key: sent as a bearer token; None sends none.
        key_variable: the environment variable of the key, for messages; the core fills it in from the YAML.
        dimensions: length of vector asked for, for models that can shorten theirs; None is the model's own.
        dim: length of vector to expect without `dimensions`; None finds it out by one request at load.
        similarity: `cosine` or `dot`, as the model's authors compare its vectors.
        encoding_format: how vectors travel: `base64` is a third of the size of `float`, which every server knows.
        batch_texts: texts of one request at most.
        batch_bytes: UTF-8 bytes of one request at most. No token is shorter than a byte, so that 300,000 are never
            more than the 300,000 tokens that OpenAI takes at once.
        prices: table of prices by model name; None counts no money.
        usd_per_million_tokens: price; None is that of the table.
        timeout_s: one attempt.
        retries: further attempts after a transient error.
        concurrency: requests in flight at once.
    """

    is_remote = True
    optional_modules: ClassVar[Mapping[str, str]] = {"openai": "openai"}

    def __init__(
        self,
        model: Model,
        base_url: str | None = None,
        api_key: str | None = None,
        key_variable: str | None = None,
        dimensions: int | None = None,
        dim: int | None = None,
        similarity: Similarity = "cosine",
        encoding_format: Encoding = "base64",
        batch_texts: int = 256,
        batch_bytes: int = 300_000,
        prices: Mapping[str, Mapping[str, Any]] | None = None,
        usd_per_million_tokens: float | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        concurrency: int = 4,
    ) -> None:
        if model.role != "embedder" or not model.name:
            raise ConfigError("name", f"found a {model.role} named {model.name!r}; expected an embedder with a name")
        check_choice("similarity", similarity, get_args(Similarity))
        check_choice("encoding_format", encoding_format, get_args(Encoding))
        check_counts(batch_texts=batch_texts, batch_bytes=batch_bytes)
        check_counts_or_null(dimensions=dimensions, dim=dim)
        check_usd(usd_per_million_tokens=usd_per_million_tokens)
        self.model = model
        self._similarity: Similarity = similarity
        self.dimensions = dimensions
        self.encoding_format: Encoding = encoding_format
        self.batch_texts, self.batch_bytes = batch_texts, batch_bytes
        self.price = Price.of(prices, model.name, input=usd_per_million_tokens)
        self._dim = dimensions or dim
        self._prompts = {kind: (model.prompts or {}).get(kind, "") for kind in _KINDS}
        patience = Patience(timeout_s, retries, concurrency)
        self._server = OpenAIConnection(model.name, base_url, api_key, patience, key_variable=key_variable)

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the card; `multilingual` means any."""
        return self.model.languages

    @property
    def key_missing(self) -> str | None:
        """What is said where there is no key and one is wanted; else None."""
        return self._server.key_missing

    @property
    def dim(self) -> int:
        """Length of a vector."""
        if self._dim is None:
            raise RuntimeError(f"OpenAIEmbed of {self.model.label}: call load() first")
        return self._dim

    @property
    def similarity(self) -> str:
        """`cosine` or `dot`."""
        return self._similarity

    @property
    def max_length_tokens(self) -> int | None:
        """Where texts are cut, by estimate; None is nowhere."""
        return self.model.max_length_tokens

    @property
    def model_id(self) -> str:
        """Server, model, dimensions, prompts and length in one digest. What the server changes is not seen."""
        return stable_hash(
            {
                "backend": "openai-embeddings",
                "base_url": self._server.base_url,
                "name": self.model.name,
                "dimensions": self.dimensions,
                "prompts": {str(kind): prompt for kind, prompt in self._prompts.items()},
                "max_length_tokens": self.model.max_length_tokens,
            }
        )

    def load(self) -> None:
        """Make the client; where no `dim` is declared, embed one word to see. Does nothing the second time.

        Raises:
            RemoteError: the server does not answer.
        """
        self._server.load()
        if self._dim is None:
            self._dim = self._found_dim()

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        """float32 [n_texts, dim], in the order of `texts`.

        Raises:
            RemoteError: the server gave no answer that can be used.
            CallCancelledError: nobody waits for the call any more.
        """
        sent = [self._as_sent(text, kind, call) for text in texts]
        parts = split([len(text.encode()) for text in sent], self.batch_texts, self.batch_bytes)
        requests = [partial(self._request, [sent[place] for place in part], call) for part in parts]
        batches = self._server.remote.run(requests, call)
        return np.concatenate(batches) if batches else np.empty((0, self.dim), np.float32)

    def _found_dim(self) -> int:
        try:
            (vectors,) = self._server.remote.run([partial(self._request, ["dimension"], Call())], Call())
        except BaseException:
            self.close()
            raise
        return int(vectors.shape[1])

    def _as_sent(self, text: str, kind: TextKind, call: Call) -> str:
        prompted = self._prompts[kind] + text
        limit = self.model.max_length_tokens
        kept = prompted if limit is None else prompted[: fitting_characters(prompted, limit)]
        if len(kept) < len(prompted):
            call.note(f"texts cut to an estimated {limit} tokens")
        return kept or " "

    async def _request(self, texts: list[str], call: Call) -> Vectors:
        reply = await self._server.ask(partial(self._send, texts))
        tokens = count_at(reply, "usage.total_tokens", "usage.prompt_tokens")
        call.count(tokens=int(tokens), cost_usd=self.price.usd(input=tokens))
        try:
            return _vectors(reply, len(texts), self._dim)
        except ValueError as error:
            raise MalformedReplyError(self._server.remote.service, str(error)) from error

    async def _send(self, texts: list[str]) -> Any:
        import openai

        raw = await self._server.client.embeddings.with_raw_response.create(
            model=self._server.model,
            input=texts,
            encoding_format=self.encoding_format,
            dimensions=openai.omit if self.dimensions is None else self.dimensions,
            extra_headers=self._server.headers,
        )
        return raw.http_response


def _vectors(reply: Any, n_texts: int, dim: int | None) -> Vectors:
    """float32 [n_texts, dim] by the reply's own indices.

    Raises:
        ValueError: a vector is missing, there twice, of another length, or not finite.
    """
    data = reply.get("data") if isinstance(reply, Mapping) else None
    if not isinstance(data, list):
        raise ValueError("the reply has no list `data`; check that `base_url` is that of an embeddings API")
    rows: dict[int, Vectors] = {}
    for entry in data:
        place = entry.get("index") if isinstance(entry, Mapping) else None
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < n_texts or place in rows:
            raise ValueError(f"the reply has a vector of index {place!r}; expected each of 0 to {n_texts - 1} once")
        rows[place] = _row(entry.get("embedding"), place)
    if len(rows) != n_texts:
        raise ValueError(f"the reply has {len(rows)} vectors for {n_texts} texts")
    expected = dim or len(rows[0])
    for place, row in rows.items():
        if len(row) != expected or not len(row):
            raise ValueError(f"the vector of text {place} has {len(row)} numbers; expected {expected}")
    return np.stack([rows[place] for place in range(n_texts)])


def _row(found: Any, place: int) -> Vectors:
    try:
        if isinstance(found, str):
            row = np.frombuffer(base64.b64decode(found, validate=True), "<f4").astype(np.float32)
        else:
            row = np.asarray(found, np.float32)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"the vector of text {place} cannot be read: {error}") from error
    if row.ndim != 1 or not np.isfinite(row).all():
        raise ValueError(f"the vector of text {place} is no list of finite numbers")
    return row
