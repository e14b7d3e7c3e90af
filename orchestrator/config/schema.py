"""Types of the YAML keys, so that a typo is an error that names the key. One dataclass a node of the config."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from omegaconf import MISSING


class Format(Enum):
    """How results are written to stdout."""

    table = "table"
    json = "json"
    trec = "trec"


class OnBadLine(Enum):
    """What a corpus line that cannot be read does."""

    fail = "fail"
    skip = "skip"


class LogLevel(Enum):
    """Least important event that is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class PassagesHow(Enum):
    """What a stage reads of a long document."""

    truncate = "truncate"
    head_tail = "head_tail"
    title_lead = "title_lead"
    windows = "windows"


class Aggregate(Enum):
    """How the scores of a document's windows become one."""

    max = "max"
    mean = "mean"
    first = "first"


class Choose(Enum):
    """Which windows are read of a document that has too many."""

    matching = "matching"
    first = "first"


@dataclass
class PassagesSchema:
    """`pipeline.stages.<name>.passages`: what the stage reads of long documents, in its own tokens."""

    how: PassagesHow = PassagesHow.truncate
    size: int | None = None
    stride: int | None = None
    aggregate: Aggregate = Aggregate.max
    max_windows: int | None = 8
    choose: Choose = Choose.matching


class Margin(Enum):
    """How the margin between two scores is measured: as a share of the list's whole span, or as it is."""

    relative = "relative"
    absolute = "absolute"


class CutHow(Enum):
    """What ends the list that a stage passes on."""

    fixed = "fixed"
    ratio = "ratio"
    gap = "gap"
    threshold = "threshold"


@dataclass
class WhenSchema:
    """`pipeline.stages.<name>.when`: the stage runs for a query only where all that is set here holds."""

    min_candidates: int | None = None
    max_candidates: int | None = None
    max_margin: float | None = None
    margin_rank: int = 3
    margin: Margin = Margin.relative
    language: Any = None
    not_language: Any = None
    min_query_words: int | None = None
    max_query_words: int | None = None
    min_left_ms: float | None = None


@dataclass
class CutSchema:
    """`pipeline.stages.<name>.cut`: how many of its documents a stage passes on, `top_k` at most."""

    how: CutHow = CutHow.fixed
    ratio: float | None = None
    value: float | None = None
    kind: str | None = None
    min: int = 1


@dataclass
class StageSchema:
    """`pipeline.stages.<name>`: what a stage is stands under `use`; everything beside it belongs to the graph."""

    use: Any = MISSING
    inputs: list[str] = field(default_factory=list)
    top_k: int = MISSING
    passages: PassagesSchema = field(default_factory=PassagesSchema)
    when: WhenSchema = field(default_factory=WhenSchema)
    cut: CutSchema = field(default_factory=CutSchema)
    on_error: Any = None
    max_ms: float | None = None
    cache: Any = "auto"


@dataclass
class PipelineSchema:
    """`pipeline`: which stages, in which order, how many documents each passes on."""

    stages: dict[str, StageSchema] = field(default_factory=dict)


class CorpusFormat(Enum):
    """What the files of a corpus are; auto goes by their names."""

    auto = "auto"
    beir = "beir"
    jsonl = "jsonl"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    files = "files"


@dataclass
class ColumnsSchema:
    """`corpus.columns`: which column or key holds what."""

    id: str | None = "auto"
    title: str | None = "auto"
    text: Any = "auto"
    parent: str | None = "auto"
    metadata: list[str] | None = None


@dataclass
class CsvSchema:
    """`corpus.csv`: how CSV and TSV files are written."""

    delimiter: str | None = None
    quote: str | None = '"'
    header: list[str] | None = None


@dataclass
class ChunkSchema:
    """`corpus.chunk`: how long documents are cut."""

    max_chars: int | None = None
    overlap_chars: int = 0


@dataclass
class CorpusSchema:
    """`corpus`: documents, queries, judgements, and the language they are in."""

    name: str | None = None
    path: str = MISSING
    format: CorpusFormat = CorpusFormat.auto
    columns: ColumnsSchema = field(default_factory=ColumnsSchema)
    csv: CsvSchema = field(default_factory=CsvSchema)
    chunk: ChunkSchema = field(default_factory=ChunkSchema)
    queries: str | None = None
    qrels: str | None = None
    language: str = "en"
    split: str = "auto"
    max_queries: int | None = None
    on_bad_line: OnBadLine = OnBadLine.fail


class Priority(Enum):
    """What a decision looks for within the budget."""

    precision = "precision"
    balanced = "balanced"
    speed = "speed"


class Device(Enum):
    """What the reranking models run on."""

    cpu = "cpu"
    gpu = "gpu"


@dataclass
class NeedSchema:
    """`need`: what `orchestrate plan` and `+scenario=auto` decide by."""

    latency_ms: float | None = None
    candidates: int | None = None
    language: str = "auto"
    priority: Priority = Priority.balanced
    device: Device = Device.cpu
    doc_tokens: int | None = None
    allow: Any = field(default_factory=lambda: ["hub"])
    auto: bool = False


@dataclass
class StorageSchema:
    """`storage`: where indexes, vectors and exported models live. null: $ORCHESTRATOR_HOME or the user's cache."""

    root: str | None = None


@dataclass
class CacheSchema:
    """`cache`: scores that models gave, and results of whole stages, kept on disk."""

    scores: bool = True
    max_mb: float | None = 512
    remote_days: float = 30
    stages: bool = True
    stages_max_mb: float | None = 1024


@dataclass
class LogSchema:
    """`log`: events on stderr, and OpenTelemetry spans."""

    level: LogLevel = LogLevel.info
    json: bool = False
    otel: bool = False


@dataclass
class RootSchema:
    """The whole configuration."""

    task: Any = MISSING
    corpus: CorpusSchema = field(default_factory=CorpusSchema)
    models: dict[str, Any] = field(default_factory=dict)
    pipeline: PipelineSchema = field(default_factory=PipelineSchema)
    budget_ms: float | None = None
    need: NeedSchema = field(default_factory=NeedSchema)
    decision: Any = None
    cost: Any = None
    prices: Any = None
    query: str | None = None
    format: Format = Format.table
    storage: StorageSchema = field(default_factory=StorageSchema)
    cache: CacheSchema = field(default_factory=CacheSchema)
    log: LogSchema = field(default_factory=LogSchema)


def register() -> None:
    """Make the schema known to Hydra under the name `schema`, and the resolvers that conf/ uses."""
    import secrets

    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    store.store(name="schema", node=RootSchema)
    store.store(group="task/learner", name="train", node=_learner_options())
    if not OmegaConf.has_resolver("run_id"):
        # Two runs within a second, or within a sweep on several machines, never share a folder.
        OmegaConf.register_new_resolver("run_id", lambda: secrets.token_hex(3), use_cache=True)


def _learner_options() -> dict[str, Any]:
    """`learner` of conf/task/train.yaml, which `evaluate folds=N` trains with too: written once."""
    from importlib.resources import files

    from omegaconf import OmegaConf

    text = files("orchestrator.conf").joinpath("task", "train.yaml").read_text(encoding="utf-8")
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(text).learner))
