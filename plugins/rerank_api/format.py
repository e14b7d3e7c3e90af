"""How a rerank service is asked and how it answers, as data: a service is a YAML file, not a branch in the code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.services.replies import find
from orchestrator.stage import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankFormat:
    """One service's wire format. Keys of the reply may be dotted paths.

    Attributes:
        path: put after `base_url`; `{name}` in it is the model's name.
        query: key of the question.
        query_text: the question is an object with its text under this key; None is a plain string.
        documents: key of the list of documents.
        document_text: documents are objects with their text under this key; None is plain strings.
        model: key of the model's name; None sends none.
        top: key of how many results are wanted, always all of them; None sends none.
        extra: sent as it is with every request.
        headers: sent as they are.
        key_header: header of the key.
        key_prefix: what stands before the key in it.
        results: where the list of results is; None is the reply itself.
        index: key of a result's place in the list that was sent.
        score: key of a result's score.
        tokens: where the number of tokens is; None counts none.
        units: where the number of billed search units is; None counts none.
    """

    path: str
    query: str = "query"
    query_text: str | None = None
    documents: str = "documents"
    document_text: str | None = None
    model: str | None = "model"
    top: str | None = "top_n"
    extra: Mapping[str, Json] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    results: str | None = "results"
    index: str = "index"
    score: str = "relevance_score"
    tokens: str | None = "usage.total_tokens"
    units: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RerankFormat:
        """The format that a YAML mapping declares.

        Raises:
            ConfigError: a key is unknown, or `path` is missing or does not begin with a slash.
        """
        known = [spec.name for spec in fields(cls)]
        for key in values:
            if key not in known:
                hint = did_you_mean(key, known)
                raise ConfigError(f"format.{key}", f"no such key; keys: {', '.join(known)}.{hint}")
        path = values.get("path")
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigError("format.path", f"found {path!r}; expected a path such as /v1/rerank")
        return cls(**values)

    @property
    def settings(self) -> dict[str, Json]:
        """All that shapes a request or how its reply is read. Of headers the names alone, of the key nothing."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        told = {"extra": dict(self.extra), "headers": sorted(self.headers)}
        return {key: value for key, value in {**values, **told}.items() if key not in ("key_header", "key_prefix")}

    def path_of(self, name: str | None) -> str:
        """The path of requests to the model `name`."""
        return self.path.replace("{name}", quote(name or "", safe=""))

    def request(self, name: str | None, query: str, texts: Sequence[str]) -> dict[str, Json]:
        """The body of one request. An empty text is sent as one space: several services refuse empty ones."""
        filled = [text or " " for text in texts]
        documents: Json = [{self.document_text: text} for text in filled] if self.document_text else filled
        asked: Json = {self.query_text: query or " "} if self.query_text else query or " "
        body: dict[str, Json] = {self.query: asked, self.documents: documents, **self.extra}
        if self.model and name:
            body[self.model] = name
        if self.top:
            body[self.top] = len(texts)
        return body

    def scores(self, reply: Any, n_documents: int) -> tuple[npt.NDArray[np.float64], int]:
        """Scores by the reply's own indices, whatever its order; and how many repairs that took.

        The one repair is a document that stands there twice with the same score. A document without a score is an
        error: no score can be made up for it.

        Returns:
            scores: float64 [n_documents], in the order in which the documents were sent.
            repairs: results left out.

        Raises:
            ValueError: a score is missing, no number, or given twice and differently; an index was never sent.
        """
        results = find(reply, self.results) if self.results else reply
        if not isinstance(results, list):
            raise ValueError(f"the reply has no list of results at '{self.results or 'its top'}'; check `format`")
        found: dict[int, float] = {}
        for result in results:
            place, score = self._result(result, n_documents)
            if found.setdefault(place, score) != score:
                raise ValueError(f"the reply scores document {place} twice: {found[place]:g} and {score:g}")
        missing = [place for place in range(n_documents) if place not in found]
        if missing:
            shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise ValueError(f"the reply has no score for {len(missing)} of {n_documents} documents: {shown}")
        scores = np.array([found[place] for place in range(n_documents)], np.float64)
        return scores, len(results) - n_documents

    def _result(self, result: Any, n_documents: int) -> tuple[int, float]:
        place, score = find(result, self.index), find(result, self.score)
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < n_documents:
            raise ValueError(f"the reply has a result of index {place!r}; expected 0 to {n_documents - 1}")
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError(f"the reply scores document {place} with {score!r} at '{self.score}'; expected a number")
        return place, float(score)
