"""What the learned fusion and the learned rerank have in common: features, and the model over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator.analysis import analyzer
from orchestrator.errors import ConfigError, IndexStateError
from orchestrator.stage import Corpus, Embed, Fitted, Json, Progress, is_remote
from orchestrator.types import Call, Example, Need, Query, RankedList, ScoreKind, Scores, Vectors

from .columns import Columns, of_candidates, of_lists
from .features import Candidates, feature_matrix, feature_names
from .forward import FORMAT, ForwardIndex, build
from .given import GivenTexts
from .matches import QueryTerms
from .ranker import Ranker, learner_of, read_ranker
from .tokens import Floats, Statistics, Tokens

_Texts = tuple[npt.NDArray[np.uint32], Tokens, Tokens, Statistics]
"""Ids of the query's terms; title and body of the candidates; what the collection tells about the terms."""
_SHIPPED = Path(__file__).parent / "shipped"
_FEATURES_VERSION = 1
"""Part of every model's settings: raise it when a feature of the same name would have another value."""


class LearnedStage:
    """Features of a query's candidates, and a learned model that scores them: LambdaMART, or weights of a sum.

    Documents of the corpus are read as token ids from an index of its own (`forward.py`). Documents that a caller
    brings are cut to tokens on the spot; how rare a term is, the corpus's index says where it has been built, else
    the documents brought among themselves, and the call notes it.

    Args:
        language: which analyzer cuts queries and documents.
        embedder: whose cosine of query and document is a feature too, or None.
        path: a folder of the user's for the model; None keeps it under the storage root.
        shipped: name of a model that comes with the package, and serves where none was trained for the corpus.

    Raises:
        ConfigError: the language is unknown, or no such model is shipped.
    """

    score_kind: ScoreKind = "ltr"
    cost_kind = "ltr"

    def __init__(
        self,
        language: str,
        embedder: Embed | None = None,
        path: str | None = None,
        shipped: str | None = None,
    ) -> None:
        self.analyzer = analyzer(language)
        self.embedder = embedder
        self.model_path = path
        self.shipped_model = _shipped_folder(shipped) if shipped is not None else None
        needs: set[Need] = {"scores", "statistics"}
        self.needs: frozenset[Need] = frozenset(needs | ({"vectors"} if embedder is not None else set()))
        self._inputs: tuple[str, ...] = ()
        self._corpus: Corpus | None = None
        self._index: ForwardIndex | None = None
        self._model: Ranker | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the embedder waits for somebody else's machine."""
        return is_remote(self.embedder)

    def load(self) -> None:
        """Bring the analyzer's dictionary and the embedder into memory."""
        self.analyzer.load()
        if self.embedder is not None:
            self.embedder.load()

    def close(self) -> None:
        """Let go of index and model."""
        self._corpus = self._index = self._model = None

    def index_settings(self) -> Mapping[str, Json]:
        """Format and analyzer."""
        return {"engine": "lexical features", "format": FORMAT, "analyzer": self.analyzer.settings()}

    def index(self, corpus: Corpus, directory: Path, progress: Progress) -> None:
        """Build the index of token ids and term statistics inside `directory`."""
        build(corpus, self.analyzer, directory, progress)

    def open(self, corpus: Corpus, directory: Path) -> None:
        """Map the index in `directory` into memory.

        Raises:
            IndexStateError: files are missing or damaged, or belong to another corpus.
        """
        self._index = ForwardIndex(directory, len(corpus))
        self._corpus = corpus

    def bind(self, inputs: Sequence[str]) -> None:
        """Take the scores of these stages as features."""
        self._inputs = tuple(inputs)

    def feature_names(self) -> list[str]:
        """Every feature in the order of the columns."""
        return feature_names(self._inputs, self.embedder is not None)

    def model_settings(self) -> Mapping[str, Json]:
        """Features, analyzer and embedder: a model serves only where all of them are as they were in its training."""
        return {
            "features": self.feature_names(),
            "features_version": _FEATURES_VERSION,
            "analyzer": self.analyzer.settings(),
            "embedder": self.embedder.model_id if self.embedder is not None else None,
        }

    def check_options(self, options: Mapping[str, Json]) -> None:
        """Refuse options of `fit` that are wrong.

        Raises:
            ConfigError: an option has no such name or a wrong value.
        """
        learner_of(options).check(options, self.feature_names())

    def fit(
        self, train: Sequence[Example], validation: Sequence[Example], options: Mapping[str, Json], progress: Progress
    ) -> Fitted:
        """Learn from `train`, stop by nDCG@10 on `validation`, and serve with the model from then on."""
        self._model, fitted = learner_of(options).fit(train, validation, self.feature_names(), options, progress)
        return fitted

    @property
    def model_id(self) -> str:
        """Digest of the model that is open, for stages that learn from this one's scores."""
        return "untrained" if self._model is None else self._model.digest

    def write_model(self, directory: Path) -> None:
        """Write the model into `directory`."""
        self._ready().write(directory)

    def open_model(self, directory: Path) -> None:
        """Serve with the model in `directory`.

        Raises:
            IndexStateError: it is missing or damaged.
            MissingExtraError: it is one of trees, and xgboost is not installed.
        """
        self._model = read_ranker(directory)

    def predict(self, features: Vectors) -> Scores:
        """float64 [n], higher better."""
        return self._ready().predict(features)

    def contributions(self, features: Vectors) -> Floats:
        """float64 [n, n_features + 1]: what each feature adds to each score, and last where every score starts.

        A row sums to the score of that row. `features` are those of one query's candidates.
        """
        return self._ready().contributions(features)

    def features(
        self, query: Query, candidates: RankedList | Mapping[str, RankedList], call: Call
    ) -> tuple[Sequence[str], Vectors]:
        """Ids of the candidates and their features, float32 [n_candidates, n_features]; NaN where not known.

        Raises:
            IndexStateError: candidates are of the corpus, and no index is open.
        """
        if isinstance(candidates, RankedList):
            doc_ids: Sequence[str] = candidates.doc_ids
            columns = of_candidates(candidates, self._inputs)
        else:
            doc_ids, columns = of_lists(candidates, self._inputs)
        return doc_ids, feature_matrix(self._candidates(query, doc_ids, columns, call))

    def _candidates(
        self, query: Query, doc_ids: Sequence[str], columns: Mapping[str, Columns], call: Call
    ) -> Candidates:
        tokens = self.analyzer(query.text)
        distinct = list(dict.fromkeys(tokens))
        sequence = np.array([distinct.index(token) for token in tokens], dtype=np.int64)
        cosine = self._cosine(query, doc_ids, call) if self.embedder is not None else None
        if call.in_corpus:
            ids, title, body, statistics = self._from_index(doc_ids, distinct)
        else:
            ids, title, body, statistics = self._from_texts(doc_ids, distinct, call)
        return Candidates(columns, title, body, QueryTerms(ids, sequence), statistics, cosine)

    def _from_index(self, doc_ids: Sequence[str], terms: Sequence[str]) -> _Texts:
        if self._index is None or self._corpus is None:
            raise IndexStateError("lexical features: no index is open; expected open() before candidates of a corpus")
        ids = self._index.ids(terms)
        title, body = self._index.take(self._corpus.ordinals(doc_ids))
        return ids, title, body, self._index.statistics(ids)

    def _from_texts(
        self, doc_ids: Sequence[str], terms: Sequence[str], call: Call
    ) -> tuple[np.ndarray, Tokens, Tokens, Statistics]:
        if self._inputs:
            call.note(f"documents given have no scores of {', '.join(self._inputs)}; the model was trained with them")
        texts = GivenTexts([call.documents[doc_id] for doc_id in doc_ids], self.analyzer)
        ids = texts.ids(terms)
        if self._index is not None:
            return ids, texts.title, texts.body, self._index.statistics(self._index.ids(terms))
        call.note("term statistics of the documents given: the corpus has no index of them (orchestrate index)")
        return ids, texts.title, texts.body, texts.statistics(terms)

    def _cosine(self, query: Query, doc_ids: Sequence[str], call: Call) -> Floats:
        """float64 [n_candidates]: cosine of the query's vector with each document's."""
        if not doc_ids:
            return np.empty(0)
        rows = np.stack([_vector(call.documents[doc_id].vector, doc_id) for doc_id in doc_ids])
        asked = _vector(query.vector, query.query_id)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows) * (asked @ asked))
        cosine: Floats = np.einsum("ij,j->i", rows, asked) / np.maximum(lengths, 1e-12)
        return cosine

    def _ready(self) -> Ranker:
        if self._model is None:
            raise IndexStateError("learned: no model is open; expected open_model() or fit() before scores")
        return self._model


def _shipped_folder(name: str) -> Path:
    folders = {folder.name: folder for folder in sorted(_SHIPPED.iterdir()) if folder.is_dir()}
    if name not in folders:
        choices = ", ".join(folders) or "none"
        raise ConfigError("shipped", f"no model '{name}' comes with the package; choices: {choices}, or null")
    return folders[name]


def _vector(vector: Vectors | None, name: str) -> Vectors:
    if vector is None:
        raise ValueError(f"'{name}' came without its vector; expected one from the embedder of this stage")
    return vector
