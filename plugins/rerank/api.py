"""Reranking by a service over HTTP: Cohere, Jina, Voyage, Mixedbread, TEI, vLLM, Infinity, llama.cpp and their like."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.errors import ConfigError, MissingExtraError, PermanentError, TransientError, did_you_mean
from orchestrator.models import Model
from orchestrator.remote import Patience, Remote, address, checked_url, run_on_loop, split
from orchestrator.replies import count_at, json_reply, status_error
from orchestrator.storage import stable_hash
from orchestrator.types import Call, Document, Need, Query

from .api_format import RerankFormat

if TYPE_CHECKING:
    import httpx2

ApiScoreKind = Literal["probability", "logit"]
_UNIT_DOCUMENTS = 100
"""Documents of one search unit, where a service bills by units and does not say how many (Cohere, pricing page)."""


class ApiRerank:
    """A `PointwiseRerank` on a rerank service. What is peculiar to a service is in its `format`.

    Pairs are grouped by query and cut into requests that keep to the service's limits; requests run side by side under
    one deadline. Scores belong to documents by the reply's `index`. Documents are sent as `Document.full_text`.

    Args:
        model: card of a reranker; `name` is what the service calls the model.
        base_url: of the service, without the path.
        format: of requests and replies, see `RerankFormat`.
        score_kind: `probability` (0 to 1, checked) or `logit`.
        api_key: sent as the format says; None sends none.
        key_required: whether to stop at load, before anything is indexed, when there is none.
        max_documents: of one request.
        max_bytes: UTF-8 bytes of one request's documents; None is no limit.
        usd_per_million_tokens: price, where tokens are billed.
        usd_per_thousand_units: price, where search units are billed.
        timeout_s: one attempt.
        retries: further attempts after a transient error.
        concurrency: requests in flight at once.
    """

    needs: frozenset[Need] = frozenset({"text"})

    def __init__(
        self,
        model: Model,
        base_url: str,
        format: Mapping[str, Any],  # noqa: A002 - the YAML key
        score_kind: ApiScoreKind = "probability",
        api_key: str | None = None,
        key_required: bool = False,
        max_documents: int = 1000,
        max_bytes: int | None = None,
        usd_per_million_tokens: float | None = None,
        usd_per_thousand_units: float | None = None,
        timeout_s: float = 10.0,
        retries: int = 2,
        concurrency: int = 4,
    ) -> None:
        if model.role != "reranker":
            raise ConfigError("role", f"found '{model.role}'; expected reranker")
        if score_kind not in get_args(ApiScoreKind):
            kinds = get_args(ApiScoreKind)
            hint = did_you_mean(str(score_kind), kinds)
            raise ConfigError("score_kind", f"found '{score_kind}'; choices: {', '.join(kinds)}.{hint}")
        _check_numbers(max_documents=max_documents, max_bytes=max_bytes)
        _check_prices(usd_per_million_tokens=usd_per_million_tokens, usd_per_thousand_units=usd_per_thousand_units)
        self.model = model
        self.base_url = checked_url(base_url)
        self.format = RerankFormat.of(format)
        self.score_kind: ApiScoreKind = score_kind
        self.max_documents, self.max_bytes = max_documents, max_bytes
        self.usd_per_million_tokens = usd_per_million_tokens or 0.0
        self.usd_per_thousand_units = usd_per_thousand_units or 0.0
        self._api_key = api_key or None
        self.key_required = key_required
        service = f"{model.label} at {address(self._url)}"
        self._remote = Remote(service, Patience(timeout_s, retries, concurrency))
        self._loading = threading.Lock()
        self._client: httpx2.AsyncClient | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the card; `multilingual` means any."""
        return self.model.languages

    @property
    def model_id(self) -> str:
        """Service, model and what is sent beside the texts, in one digest. What the service changes is not seen."""
        return stable_hash({"url": self._url, "name": self.model.name, "extra": dict(self.format.extra)})

    def load(self) -> None:
        """Make the client; sends nothing. Does nothing the second time.

        Raises:
            ConfigError: there is no key, and the service wants one.
            MissingExtraError: httpx2 is not installed.
        """
        if self.key_required and self._api_key is None:
            where = f"{self._remote.service} wants one"
            raise ConfigError("api_key", f"missing; {where}: put it into the environment variable that `api_key` names")
        try:
            import httpx2
        except ModuleNotFoundError as error:
            raise MissingExtraError("api", "httpx2") from error
        with self._loading:
            if self._client is None:
                limits = httpx2.Limits(max_connections=self._remote.patience.concurrency)
                # No timeouts here: they are per phase, and the core's deadline is around the whole call.
                self._client = httpx2.AsyncClient(headers=self._headers(), timeout=None, limits=limits)

    def close(self) -> None:
        """Close the connections."""
        with self._loading:
            if self._client is not None:
                run_on_loop(self._client.aclose())
            self._client = None

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> npt.NDArray[np.float64]:
        """float64 [n_pairs], in the order of `pairs`.

        Raises:
            RemoteError: the service gave no answer that can be used.
            CallCancelledError: nobody waits for the call any more.
        """
        texts = [document.full_text for _, document in pairs]
        groups: dict[str, list[int]] = {}
        for place, (query, _) in enumerate(pairs):
            groups.setdefault(query.text, []).append(place)
        parts = [(query, part) for query, places in groups.items() for part in self._parts(places, texts)]
        requests = [partial(self._request, query, [texts[place] for place in part], call) for query, part in parts]
        scores = np.empty(len(pairs), np.float64)
        for (_, part), found in zip(parts, self._remote.run(requests, call), strict=True):
            scores[part] = found
        return scores

    @property
    def _url(self) -> str:
        return f"{self.base_url}{self.format.path}"

    def _headers(self) -> dict[str, str]:
        key = {self.format.key_header: f"{self.format.key_prefix}{self._api_key}"} if self._api_key else {}
        return {**self.format.headers, **key}

    def _parts(self, places: Sequence[int], texts: Sequence[str]) -> list[list[int]]:
        sizes = [len(texts[place].encode()) for place in places]
        return [[places[row] for row in part] for part in split(sizes, self.max_documents, self.max_bytes)]

    async def _request(self, query: str, texts: list[str], call: Call) -> npt.NDArray[np.float64]:
        reply = await self._ask(self.format.request(self.model.name, query, texts))
        self._count(reply, len(texts), call)
        try:
            scores, repairs = self.format.scores(reply, len(texts))
            if self.score_kind == "probability":
                _refuse_others(scores)
        except ValueError as error:
            raise PermanentError(self._remote.service, str(error)) from error
        call.count(repairs=repairs)
        return scores

    async def _ask(self, body: Mapping[str, object]) -> Any:
        import httpx2

        if self._client is None:
            raise RuntimeError(f"{self._remote.service}: call load() first")
        service = self._remote.service
        try:
            response = await self._client.post(self._url, json=body)
        except httpx2.RequestError as error:
            raise TransientError(service, f"no connection ({type(error).__name__}: {error})") from error
        if not response.is_success:
            raise status_error(service, response.status_code, response.text, response.headers, self._api_key)
        return json_reply(service, response.text, self._api_key)

    def _count(self, reply: Any, n_documents: int, call: Call) -> None:
        tokens = count_at(reply, self.format.tokens) if self.format.tokens else 0.0
        units = count_at(reply, self.format.units) if self.format.units else 0.0
        if self.usd_per_thousand_units and not units:
            units = math.ceil(n_documents / _UNIT_DOCUMENTS)
        cost = tokens * self.usd_per_million_tokens / 1e6 + units * self.usd_per_thousand_units / 1e3
        call.count(tokens=int(tokens), cost_usd=cost)


def _refuse_others(scores: npt.NDArray[np.float64]) -> None:
    """Raise where a score is no probability: a threshold on it would mean something else."""
    for score in scores[(scores < -1e-6) | (scores > 1 + 1e-6)][:1].tolist():
        raise ValueError(f"the reply has a score of {score:g}, which is no probability; set score_kind: logit")


def _check_numbers(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(name, f"found {value!r}; expected a whole number from 1")


def _check_prices(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value >= 0:
            raise ConfigError(name, f"found {value}; expected a price in US dollars, from 0")
