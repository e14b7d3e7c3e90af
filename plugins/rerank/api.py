"""Reranking by a service over HTTP: Cohere, Jina, Voyage, Mixedbread, TEI, vLLM, Infinity, llama.cpp and their like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.checks import check_choice, check_counts, check_counts_or_null
from orchestrator.errors import ConfigError, MalformedReplyError, MissingExtraError, TransientError
from orchestrator.models.card import Model, check_role
from orchestrator.services.loop import OnLoop
from orchestrator.services.remote import Patience, Remote, address, checked_url, split
from orchestrator.services.replies import error_inside, json_reply, missing_key, redacted, said_in, status_error
from orchestrator.services.spending import Price, Purse, check_usd
from orchestrator.stage import Json
from orchestrator.storage import stable_hash
from orchestrator.types import Call, Document, Need, Query

from ..estimate import estimated_tokens, fitting_characters, room_within, token_spans
from ..rerank_api.bill import Bill
from ..rerank_api.format import RerankFormat
from ..tls import trusted

if TYPE_CHECKING:
    import httpx2

ApiScoreKind = Literal["probability", "logit"]


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
        key_variable: the environment variable of the key, for messages; the core fills it in from the YAML.
        key_required: whether to stop at load, before anything is indexed, when there is none.
        max_documents: of one request.
        max_bytes: UTF-8 bytes of one request's documents; None is no limit.
        max_tokens: of one request by estimate, the question counted once a document; None is no limit.
        max_document_tokens: where a document is cut, by estimate; None leaves that to the service.
        prices: table of prices by model name; None counts no money.
        usd_per_million_tokens: price, where tokens are billed; None is that of the table.
        usd_per_thousand_units: price, where search units are billed; None is that of the table.
        max_usd: what this stage may spend for as long as it lives: one run, or the whole life of a server. Checked
            before each request with the dearest that it can become, see `Bill`. None is no limit.
        timeout_s: one attempt.
        retries: further attempts after a transient error.
        concurrency: requests in flight at once.
    """

    needs: frozenset[Need] = frozenset({"text"})
    cacheable_scores = True
    is_remote = True
    cost_kind = "api"
    optional_modules: ClassVar[Mapping[str, str]] = {"httpx2": "api"}

    def __init__(
        self,
        model: Model,
        base_url: str,
        format: Mapping[str, Any],  # noqa: A002 - the YAML key
        score_kind: ApiScoreKind = "probability",
        api_key: str | None = None,
        key_variable: str | None = None,
        key_required: bool = False,
        max_documents: int = 1000,
        max_bytes: int | None = None,
        max_tokens: int | None = None,
        max_document_tokens: int | None = None,
        prices: Mapping[str, Mapping[str, Any]] | None = None,
        usd_per_million_tokens: float | None = None,
        usd_per_thousand_units: float | None = None,
        max_usd: float | None = None,
        timeout_s: float = 10.0,
        retries: int = 2,
        concurrency: int = 4,
    ) -> None:
        check_role(model, "reranker")
        check_choice("score_kind", score_kind, get_args(ApiScoreKind))
        check_counts(max_documents=max_documents)
        check_counts_or_null(max_bytes=max_bytes, max_tokens=max_tokens, max_document_tokens=max_document_tokens)
        self.model = model
        self.base_url = checked_url(base_url)
        self.format = RerankFormat.of(format)
        self.score_kind: ApiScoreKind = score_kind
        self.max_documents, self.max_bytes, self.max_tokens = max_documents, max_bytes, max_tokens
        self.max_document_tokens = max_document_tokens
        check_usd(usd_per_million_tokens=usd_per_million_tokens, usd_per_thousand_units=usd_per_thousand_units)
        price = Price.of(prices, model.name, input=usd_per_million_tokens, units=usd_per_thousand_units)
        if max_usd is not None and not price.known:
            keys = "usd_per_million_tokens or usd_per_thousand_units"
            found = f"needs the price of '{model.name}', and `prices` has none"
            raise ConfigError("max_usd", f"{found}: set {keys}, or max_usd=null")
        self._api_key = api_key or None
        self.key_required, self.key_variable = key_required, key_variable
        service = f"{model.label} at {address(self._url)}"
        self._remote = Remote(service, Patience(timeout_s, retries, concurrency))
        self._bill = Bill(price, Purse(service, max_usd), self.format)
        self._priced = prices is not None
        self._client = OnLoop(service, self._made, lambda client: client.aclose())

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the card; `multilingual` means any."""
        return self.model.languages

    @property
    def model_id(self) -> str:
        """Service, model, format and kind of score in one digest. What the service changes is not seen."""
        service: dict[str, Json] = {"url": self._url, "name": self.model.name, "cut": self.max_document_tokens}
        return stable_hash({**service, "kind": self.score_kind, "format": self.format.settings})

    @property
    def key_missing(self) -> str | None:
        """What is said where there is no key and one is wanted; else None."""
        if self.key_required and self._api_key is None:
            return missing_key(self._remote.service, self.key_variable).detail
        return None

    def load(self) -> None:
        """Make the client; sends nothing. Does nothing the second time.

        Raises:
            ConfigError: there is no key, and the service wants one.
            MissingExtraError: httpx2 is not installed.
        """
        if self.key_missing:
            raise ConfigError("api_key", self.key_missing)
        self._client.load()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> npt.NDArray[np.float64]:
        """float64 [n_pairs], in the order of `pairs`.

        Raises:
            RemoteError: the service gave no answer that can be used.
            CallCancelledError: nobody waits for the call any more.
        """
        if self._priced and not self._bill.price.known:
            call.note(f"no money is counted: `prices` knows no model '{self.model.name}'")
        texts = [self._shown(document, call) for _, document in pairs]
        groups: dict[str, list[int]] = {}
        for place, (query, _) in enumerate(pairs):
            groups.setdefault(query.text, []).append(place)
        parts = [(query, part) for query, places in groups.items() for part in self._parts(query, places, texts)]
        requests = [partial(self._request, query, part, [texts[row] for row in part], call) for query, part in parts]
        scores = np.empty(len(pairs), np.float64)
        for (_, part), found in zip(parts, self._remote.run(requests, call), strict=True):
            scores[part] = found
        return scores

    def token_spans(self, text: str) -> npt.NDArray[np.int64]:
        """int64 [n_tokens, 2]: where each token of `text` begins and ends, by estimate."""
        return token_spans(text)

    def room(self, query: object) -> int | None:
        """Tokens that a document may have beside `query`: less than it is cut at, as an estimate's borders lie."""
        return None if self.max_document_tokens is None else room_within(self.max_document_tokens)

    @property
    def _url(self) -> str:
        return f"{self.base_url}{self.format.path_of(self.model.name)}"

    def _made(self) -> httpx2.AsyncClient:
        try:
            import httpx2
        except ModuleNotFoundError as error:
            raise MissingExtraError("api", "httpx2") from error
        limits = httpx2.Limits(max_connections=self._remote.patience.concurrency)
        # No timeouts here: they are per phase, and the core's deadline is around the whole call.
        return httpx2.AsyncClient(headers=self._headers(), timeout=None, limits=limits, verify=trusted())

    def _headers(self) -> dict[str, str]:
        key = {self.format.key_header: f"{self.format.key_prefix}{self._api_key}"} if self._api_key else {}
        return {**self.format.headers, **key}

    def _shown(self, document: Document, call: Call) -> str:
        text = document.full_text
        if self.max_document_tokens is None:
            return text
        kept = text[: fitting_characters(text, self.max_document_tokens)]
        if len(kept) < len(text):
            call.note(f"documents cut to an estimated {self.max_document_tokens} tokens")
        return kept

    def _parts(self, query: str, places: Sequence[int], texts: Sequence[str]) -> list[list[int]]:
        """The places of each request. A document fills the larger of its shares of bytes and of tokens."""
        asked = estimated_tokens(query) if self.max_tokens else 0
        shares = []
        for text in (texts[place] for place in places):
            of_bytes = len(text.encode()) / self.max_bytes if self.max_bytes else 0.0
            of_tokens = (asked + estimated_tokens(text)) / self.max_tokens if self.max_tokens else 0.0
            shares.append(max(of_bytes, of_tokens))
        return [[places[row] for row in part] for part in split(shares, self.max_documents, 1.0)]

    async def _request(self, query: str, rows: Sequence[int], texts: list[str], call: Call) -> npt.NDArray[np.float64]:
        with self._bill.reserved(query, texts) as pay:
            reply = await self._ask(self.format.request(self.model.name, query, texts))
            self._bill.settle(reply, query, texts, pay, call)
        try:
            scores, repairs = self.format.scores(reply, len(texts))
            if self.score_kind == "probability":
                _refuse_others(scores)
        except ValueError as error:
            said = redacted(said_in(reply), self._api_key)
            detail = f"{error}. The service says: {said}" if said else str(error)
            inside = error_inside(self._remote.service, reply, self._api_key)
            raise inside or MalformedReplyError(self._remote.service, detail) from error
        call.repair("duplicate", repairs)
        call.report(rows, scores.tolist())
        return scores

    async def _ask(self, body: Mapping[str, object]) -> Any:
        import httpx2

        service = self._remote.service
        try:
            response = await self._client.get().post(self._url, json=body)
        except httpx2.RequestError as error:
            raise TransientError(service, f"no connection ({type(error).__name__}: {error})") from error
        if not response.is_success:
            told = (response.status_code, response.text, response.headers)
            raise status_error(service, *told, self._api_key, self.key_variable)
        return json_reply(service, response.text, self._api_key)


def _refuse_others(scores: npt.NDArray[np.float64]) -> None:
    """Raise where a score is no probability: a threshold on it would mean something else."""
    for score in scores[(scores < -1e-6) | (scores > 1 + 1e-6)][:1].tolist():
        raise ValueError(f"the reply has a score of {score:g}, which is no probability; set score_kind: logit")
