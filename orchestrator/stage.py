"""What a stage is: the few methods each kind has. No base class to inherit; having the method is enough.

Common to all kinds:
- `__init__` checks and keeps its arguments, cheaply, so that a whole graph validates with no model loaded.
- `load()` (optional) brings the heavy state, once, outside the timing. `close()` (optional) lets it go.
- Class or instance attributes say what a stage is and needs: `score_kind`, `needs` (a frozenset of `Need`; when absent,
  `text` for a pointwise or window rerank and nothing for the others), and `embedder` for a stage that needs `vectors`.
- `check_inputs(names)` (optional) raises a ConfigError when the stage cannot work on these inputs;
  `check_score_kinds({name: score_kind})` (optional) when it cannot mix their scores.
- A fusion or a list rerank that needs `text` or `vectors` finds its candidates in `call.documents`; needing
  `statistics` gives it the text of candidates that its index does not hold.
- `index_settings`, `index` and `open` (optional, see `Indexed`) give a stage of any kind an index of the corpus.
- A rerank that reads `text` may have `token_spans` and `room` (`KnowsTokens`), by which the core cuts long documents.
- `cacheable_scores = True` says that scores (of a window rerank: orders) depend on nothing but `model_id`, the query's
  text and the documents' full texts, so that the core may keep them between questions.
- `is_remote` (attribute or property; absent is False) says that the stage waits for somebody else's machine, or its
  embedder does: see `is_remote()`. Such a stage raises a TransientError where another attempt may help, and a
  PermanentError where it cannot; only the first may be passed over (`on_error`). It is asked for all it is to do at
  once, and its kept scores expire.
- `depends_on` (attribute or property, JSON): what answers depend on beside the stage's configuration, its code, its
  model (`model_id`), its index and the corpus: the digest of a file that it reads, the day. Absent: on nothing more.
  None says that nobody can tell (chance, a clock, a service), so that results are never kept between jobs. Asked after
  `load()`.
- A pointwise rerank may tell scores with `call.report` while it works; they count when its time ends before the rest.
- What `orchestrate check` asks, all of it optional, of a stage and of the `embedder` or `encoder` that it holds:
  `languages: Sequence[str]` of its model; `model`, its card; `at_hand() -> bool`, whether the model's files are on this
  machine; `key_missing: str | None`, what is said where a key is wanted and there is none; `optional_modules`,
  module -> extra that installs it; `payload_fields`, key of the stage -> payload field that it names;
  `suits_documents: int | None`, how large a corpus a recall is meant for; `score_kinds`, the kinds of which `load()`
  chooses one; `cost_kind: str | None`, the row of conf/cost that its time is reckoned by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from orchestrator.types import (
    Call,
    Document,
    Example,
    Query,
    RankedList,
    Scored,
    ScoreKind,
    SparseVector,
    TextKind,
    TokenVectors,
    Vectors,
)
from orchestrator.types import (
    Json as Json,
)

if TYPE_CHECKING:
    from orchestrator.models.card import Model

Progress: TypeAlias = Callable[[str, int, int], None]
"""`progress(what, done, total)`: called now and then by long work, for example `("embed", 640, 15772)`."""


def no_progress(what: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""


def is_remote(part: object) -> bool:
    """Whether a stage or an embedder says that it waits for somebody else's machine."""
    return bool(getattr(part, "is_remote", False))


@runtime_checkable
class Embed(Protocol):
    """Turns texts into vectors."""

    @property
    def dim(self) -> int:
        """Length of a vector. Known after `load()`."""

    @property
    def similarity(self) -> str:
        """`cosine` or `dot`: how the model's authors compare its vectors. Known after `load()`."""

    @property
    def model_id(self) -> str:
        """Changes whenever vectors would: weights, tokenizer, prompts, length. Known after `load()`."""

    def load(self) -> None:
        """Bring the weights into memory; does nothing the second time."""

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        """float32 [n_texts, dim], in the order of `texts`; each row independent of the other texts."""


@runtime_checkable
class EmbedTokens(Protocol):
    """Turns texts into one vector a token, for late interaction."""

    @property
    def dim(self) -> int:
        """Length of a vector. Known after `load()`."""

    @property
    def model_id(self) -> str:
        """Changes whenever vectors would: weights, tokenizer, markers, lengths. Known after `load()`."""

    def load(self) -> None:
        """Bring the weights into memory; does nothing the second time."""

    def embed_tokens(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[TokenVectors]:
        """The token vectors of each text, in the order of `texts`; each text independent of the others."""


@runtime_checkable
class EmbedSparse(Protocol):
    """Turns texts into sparse vectors, which are compared by their dot product."""

    @property
    def score_kind(self) -> ScoreKind:
        """What the dot product of a query and a document is: `dot`, or `bm25`."""

    @property
    def uses_idf(self) -> bool:
        """Whether the index multiplies each weight of a query by how rare its dimension is in the corpus."""

    @property
    def model_id(self) -> str:
        """Changes whenever vectors would: weights, tokenizer, analyzer, lengths. Known after `load()`."""

    def load(self) -> None:
        """Bring weights or dictionaries into memory; does nothing the second time."""

    def embed_sparse(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[SparseVector]:
        """The sparse vector of each text, in the order of `texts`; each text independent of the others."""


@runtime_checkable
class WeighsInCorpus(Protocol):
    """An `EmbedSparse` whose weights of a document depend on the corpus: what it gives, and is kept, are counts."""

    @property
    def weighting(self) -> Mapping[str, Json]:
        """What shapes the weights beside the counts and their average."""

    def weighted(self, counts: SparseVector, average: float) -> SparseVector:
        """The weights of a document with these counts, in a corpus whose documents have `average` in all."""


class DocumentVectors(Protocol):
    """The vectors of one corpus under one embedder, memory-mapped. Row i belongs to the corpus's document i."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def __len__(self) -> int:
        """How many documents."""

    def blocks(self, size: int) -> Iterator[tuple[int, Vectors]]:
        """(ordinal of the first row, float32 [<= size, dim]) over the whole corpus, in corpus order."""

    def rows(self, ordinals: npt.NDArray[np.int64]) -> Vectors:
        """float32 [n, dim], a copy, in the order of `ordinals`."""


class Corpus(Protocol):
    """Documents on disk, in a fixed order; an ordinal is a document's place in it, from 0."""

    @property
    def name(self) -> str:
        """Short name, as in the configuration."""

    @property
    def key(self) -> str:
        """Names the corpus in folder names: its name and a hash of where it lies."""

    @property
    def language(self) -> str:
        """ISO 639-1 code declared for the corpus; selects analyzers."""

    @property
    def content_hash(self) -> str:
        """Changes when any document, or their order, changes."""

    def __len__(self) -> int:
        """How many documents."""

    def documents(self) -> Iterator[Document]:
        """All documents with text, one at a time, in corpus order."""

    def at(self, ordinals: npt.NDArray[np.int64]) -> list[Document]:
        """Documents in the order of `ordinals`."""

    def doc_ids(self, ordinals: npt.NDArray[np.int64]) -> list[str]:
        """Ids in the order of `ordinals`."""

    def find(self, doc_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """int64 [n]: the place of each id in the corpus, -1 for an id that it does not hold."""

    def ordinals(self, doc_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """int64 [n]: the place of each id in the corpus.

        Raises:
            DataError: an id is not in the corpus.
        """

    @property
    def text_keys(self) -> npt.NDArray[np.uint8]:
        """uint8 [n_documents, 16]: the key of each document's full text (`keys.py`)."""

    def vectors(self, embedder: Embed, progress: Progress = no_progress) -> DocumentVectors:
        """The corpus's vectors under `embedder`; missing ones are embedded and kept first."""


@runtime_checkable
class Recall(Protocol):
    """Finds candidates for a query."""

    score_kind: ScoreKind

    def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
        """At most `top_k` (doc_id, score), higher better, no document twice. Order does not matter to the core."""


@runtime_checkable
class Indexed(Protocol):
    """A stage of any kind that keeps an index of the corpus on disk, or a note there of where it keeps it.

    An attribute `path`, where it has one that is not None, is a folder of the user's for this index. Two more methods,
    both optional, are for an index that lies elsewhere:
    - `verify_index(corpus, directory) -> str | None`: what is wrong with it; called by `orchestrate index verify=true`.
    - `index_anew(corpus, directory, progress)`: as `index`, trusting nothing that is there already; called in its place
      by `orchestrate index force=true`.
    """

    def index_settings(self) -> Mapping[str, Json]:
        """What shapes the index, and nothing else: another value means another index. Called after `load()`.

        Takes the place of a bare fingerprint: the core hashes it for the folder's name, keeps it beside the index,
        and can name what differs.
        """

    def index(self, corpus: Corpus, directory: Path, progress: Progress) -> None:
        """Build the whole index inside `directory`, which exists and is empty. The core makes it visible atomically."""

    def open(self, corpus: Corpus, directory: Path) -> None:
        """Make the index in `directory` ready to serve queries.

        Raises:
            IndexStateError: files are missing or damaged.
        """


@runtime_checkable
class Fusion(Protocol):
    """Merges ranked lists into one."""

    score_kind: ScoreKind

    def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> Scored:
        """(doc_id, score) for every document of `lists` (stage name -> list), each once; higher better."""


@runtime_checkable
class PointwiseRerank(Protocol):
    """Scores query-document pairs one by one: a pair's score does not depend on what else is in the batch."""

    score_kind: ScoreKind

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> npt.NDArray[np.floating]:
        """Float [n_pairs], higher better, no NaN, in the order of `pairs`."""


@runtime_checkable
class ListRerank(Protocol):
    """Rescores one list as a whole: a score may depend on every other candidate."""

    score_kind: ScoreKind

    def rescore(self, query: Query, candidates: RankedList, call: Call) -> npt.NDArray[np.floating]:
        """Float [n_candidates], higher better, no NaN, in the order of `candidates`."""


@runtime_checkable
class WindowRerank(Protocol):
    """Orders a few documents that it reads together; the core slides its window over the list.

    May carry `window` (documents at once, default 20), `stride` (how far the window moves, default 10) and `passes`
    (how often a longer list is gone through, default 1). Called from several threads when several queries are asked at
    once. The score of its ranking is of kind `rank`.
    """

    score_kind: ScoreKind

    def order(self, query: Query, documents: Sequence[Document], call: Call) -> Sequence[int]:
        """Places in `documents`, best first, each of 0 to n - 1 once."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came out of one training.

    Attributes:
        rounds: how many rounds the model kept, or how large it is; `unit` says of what.
        validation: the measure that decided when to stop, at the last round kept.
        importances: feature -> how much of the model's gain it brought; they sum to 1.
        versions: library -> version, for the manifest.
        unit: what `rounds` counts, for people.
    """

    rounds: int
    validation: float
    importances: Mapping[str, float]
    versions: Mapping[str, str] = field(default_factory=dict)
    unit: str = "trees"


@runtime_checkable
class KnowsTokens(Protocol):
    """A rerank that reads text and tells the core where its tokens are, so that long documents can be cut in them."""

    def token_spans(self, text: str) -> npt.NDArray[np.int64]:
        """int64 [n_tokens, 2]: first and one past the last character of each token of `text`, special ones left out.

        Called after `load()`. A service's tokens are estimated.
        """

    def room(self, query: str) -> int | None:
        """Tokens that a document may have beside this query; None is no limit. Called after `load()`."""


@runtime_checkable
class Trainable(Protocol):
    """A fusion or a list rerank that learns from judged queries, and serves with the model it learned.

    The core names the folder of the model, writes and checks its manifest, and replaces it as a whole. An attribute
    `model_path`, where it is not None, is a folder of the user's for it.
    """

    def bind(self, inputs: Sequence[str]) -> None:
        """Told before everything below: the stages whose scores it sees, in the order of the graph."""

    def model_settings(self) -> Mapping[str, Json]:
        """What a model must have been trained with to serve here; called after `load()` and `bind()`.

        The core adds the kinds of the inputs' scores.
        """

    def features(
        self, query: Query, candidates: RankedList | Mapping[str, RankedList], call: Call
    ) -> tuple[Sequence[str], Vectors]:
        """Ids of the candidates and their features, float32 [n_candidates, n_features]; as in `fuse` or `rescore`."""

    def check_options(self, options: Mapping[str, Json]) -> None:
        """Refuse options of `fit` that are wrong, before anything is collected for it.

        Raises:
            ConfigError: an option is wrong; its path is below `task.learner`.
        """

    def fit(
        self, train: Sequence[Example], validation: Sequence[Example], options: Mapping[str, Json], progress: Progress
    ) -> Fitted:
        """Learn from `train`, stop by `validation`; the model serves this stage from then on."""

    def predict(self, features: Vectors) -> npt.NDArray[np.floating]:
        """Float [n], higher better."""

    def write_model(self, directory: Path) -> None:
        """Write the model into `directory`, which exists and is empty."""

    def open_model(self, directory: Path) -> None:
        """Serve with the model in `directory` from now on.

        Raises:
            IndexStateError: files are missing or damaged.
        """


@runtime_checkable
class Explains(Protocol):
    """A Trainable stage that tells what each feature did to a score."""

    def feature_names(self) -> Sequence[str]:
        """Every feature, in the order of the columns."""

    def contributions(self, features: Vectors) -> npt.NDArray[np.floating]:
        """Float [n, n_features + 1]: what each feature adds to each score, last where every score starts.

        A row sums to what `predict` says of it. `features` are those of one query's candidates.
        """


@dataclass(frozen=True, slots=True)
class Knob:
    """A number of a stage that may be tuned.

    Attributes:
        value: as it is now.
        choices: values to try, ascending; `value` need not be one of them.
        is_weight: of an input; only the weights' proportions count, so that the greatest can be made 1.
    """

    value: float
    choices: tuple[float, ...]
    is_weight: bool = False


@runtime_checkable
class Adjustable(Protocol):
    """A fusion that a few numbers shape, for which `orchestrate train weights` can look for better ones."""

    def knobs(self, inputs: Sequence[str]) -> Mapping[str, Knob]:
        """Name below `use`, such as `k` or `weights.bm25`, to the number, for a fusion of `inputs`."""

    def adjusted(self, values: Mapping[str, float]) -> Self:
        """One like this with other numbers, by the names of `knobs`."""


@runtime_checkable
class Tunable(Protocol):
    """Holds a model that `orchestrate train <tunes>` can go on training: a pointwise rerank, or a stage's embedder.

    Not loaded for it: training reads the checkpoint of the card, and judges with what `with_model` gives.
    """

    tunes: str
    """What it is: `bi_encoder`, `cross_encoder` or `late_interaction`."""

    def tuned_card(self) -> Model:
        """The card of the model that is trained; `orchestrator.models.resolve` finds its checkpoint."""

    def with_model(self, card: Model) -> Self:
        """One like this with another model, not loaded."""


Rerank: TypeAlias = PointwiseRerank | ListRerank | WindowRerank
Stage: TypeAlias = Recall | Fusion | PointwiseRerank | ListRerank | WindowRerank
