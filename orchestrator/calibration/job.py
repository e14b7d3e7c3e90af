"""One calibration: what is measured, in which order, and what comes out."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.calibration.corpora import count_lengths, questions, write_made_up
from orchestrator.calibration.fit import Point, fit
from orchestrator.calibration.kept import Calibration, CorpusFigures, Setting, this_machine
from orchestrator.calibration.ladder import RowKey, climb
from orchestrator.calibration.settings import Part, backends, choose
from orchestrator.calibration.timing import LENGTHS, Throughput, by_length, cut_texts, each_ms
from orchestrator.cost import AROUND, Load, StageCost
from orchestrator.errors import OrchestratorError
from orchestrator.graph import Node
from orchestrator.loading import OnBuild, silent
from orchestrator.log import get_logger
from orchestrator.models.card import Model
from orchestrator.node_cost import known_as
from orchestrator.pipeline import Pipeline
from orchestrator.stage import Progress, no_progress
from orchestrator.types import Call, Document, Query

log = get_logger()

CONF = Path(__file__).parent / "conf"
STEPS = 5
"""Of the progress."""
_DEPTHS = (10, 30, 100, 200)
_DEEP = (30, 100, 300, 1000)
_PAIRS = (1, 4, 12)
_RANDOM = ["model@models.embedder=random_vectors", "cache.scores=false", "budget_ms=null"]
_LEARNS_FROM = ("shortlist", "learned")
"""The shipped weights of the learned rerank read late interaction's scores: both are measured, or neither."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        seconds: how long each thing is timed, about.
        sample: words that choose the corpus that all kinds of stages are timed on.
        made_up: sizes of the made-up corpora that searches are timed on.
    """

    seconds: float = 4.0
    sample: Sequence[str] = ("corpus=sample",)
    made_up: Sequence[int] = (2_000, 20_000)


@dataclass
class Timed:
    """What was measured so far.

    Attributes:
        points: row of the cost model -> times.
        limits: row -> where its model cuts what it reads.
        parameters: row -> size of its model in millions.
        missing: kinds that could not be measured, and why.
        throughputs: documents a second by length.
        settings: how models run fastest.
        cost_usd: what services took.
    """

    points: dict[RowKey, list[Point]] = field(default_factory=lambda: defaultdict(list))
    limits: dict[RowKey, float] = field(default_factory=dict)
    parameters: dict[RowKey, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    throughputs: list[Throughput] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    cost_usd: float = 0.0


class Calibrating:
    """Measures this machine.

    Args:
        words: of the command line that choose models and storage.
        config_dirs: folders with configs of the user's own.
        cards: name of a model on the hub -> name of its card.
        scale: how much is measured.
        progress: told ("calibrate", steps done, steps in all).
        on_build: told before an index is built.
    """

    def __init__(
        self,
        words: Sequence[str],
        config_dirs: Sequence[Path],
        cards: Mapping[str, str],
        scale: Scale = Scale(),
        progress: Progress = no_progress,
        on_build: OnBuild = silent,
    ) -> None:
        self._words = [word for word in words if word.lstrip("+~").startswith(("model@", "models.", "storage."))]
        self._dirs, self._cards = [CONF, *config_dirs], dict(cards)
        self._scale, self._seconds = scale, scale.seconds
        self._progress, self._on_build, self._step = progress, on_build, 0
        self._tuned: list[str] = []
        self.timed = Timed()
        self._started = time.perf_counter()

    def run(self, own: Pipeline, corpus_words: Sequence[str]) -> Calibration:
        """Measure all: what is shipped, then what only `own` has, then the lengths of its corpus.

        Args:
            own: the configured pipeline.
            corpus_words: of the command line that choose its corpus.
        """
        self._tell()
        with self._sample() as pipeline:
            pipeline.load(self._progress, self._on_build)
            self._tell()
            self._choose_settings(pipeline)
        with self._sample() as pipeline:  # once more, with the settings chosen
            pipeline.load(self._progress, self._on_build)
            count = self._counter(pipeline)
            self._tell()
            self._embedder(pipeline, count)
            self._chain(pipeline, count)
            self._cross_encoder(pipeline)
            texts = [document.full_text for document in pipeline.corpus.documents()]
            dim = _embedder(pipeline).dim
            self._tell()
            self._many_documents(texts, dim, pipeline.storage_root)
            self._tell()
            self._own_stages(own, count)
            corpora = self._corpus(corpus_words, count)
            self._tell()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        took = time.perf_counter() - self._started
        timed = self.timed
        return Calibration(
            now, round(took, 1), this_machine(), list(self._rows(now)), timed.settings, timed.throughputs, corpora
        )

    def _tell(self) -> None:
        self._progress("calibrate", self._step, STEPS)
        self._step += 1

    def _compose(self, *words: str) -> Pipeline:
        return Pipeline.compose([*words, *self._words], self._dirs)

    def _sample(self) -> Pipeline:
        """Every kind of stage over the sample corpus, without those whose model is not on this machine."""
        words = ["pipeline=every_kind", *self._scale.sample, "budget_ms=null", "cache.scores=false", *self._tuned]
        whole = self._compose(*words)
        dropped: dict[str, None] = {}
        for node in whole.graph.nodes:
            part = getattr(node.stage, "encoder", node.stage)
            if getattr(part, "at_hand", lambda: True)() or node.kind == "recall":
                continue
            for name in _LEARNS_FROM if node.name in _LEARNS_FROM else (node.name,):
                kind = whole.graph[name].stage.cost_kind  # type: ignore[union-attr]
                dropped[name] = None
                self.timed.missing[str(kind)] = f"{self._name(part)} is not on this machine"
        return self._compose(*words, *(f"~pipeline.stages.{name}" for name in dropped)) if dropped else whole

    def _name(self, part: object) -> str | None:
        card = getattr(part, "model", None)
        return known_as(card, self._cards) if isinstance(card, Model) else None

    def _keep(self, key: RowKey, points: Sequence[Point], part: object) -> None:
        self.timed.points[key] += points
        limit = getattr(part, "max_length_tokens", None)
        if limit is not None:
            self.timed.limits[key] = float(limit)
        card = getattr(part, "model", None)
        if isinstance(card, Model) and card.parameters_millions is not None:
            self.timed.parameters[key] = card.parameters_millions

    def _counter(self, pipeline: Pipeline) -> Any:
        """Tokens of a text, by the embedder's tokenizer where it shows it; else a token for every four bytes."""
        spans = getattr(_embedder(pipeline), "token_spans", None)
        return (lambda text: len(spans(text))) if spans else (lambda text: max(1, len(text.encode()) // 4))

    def _embedder(self, pipeline: Pipeline, count: Any) -> None:
        embedder = _embedder(pipeline)
        asked = pipeline.corpus.queries()
        runs = [partial(embedder.embed, [query.text], kind="query", call=Call()) for query in asked]
        each_ms(runs[:5], 0.1)
        times = each_ms(runs, self._seconds)
        points = [
            Point(Load(1, count(query.text), count(query.text)), ms) for query, ms in zip(asked, times, strict=False)
        ]
        name = self._name(embedder)
        self._keep(("embed", name), points, embedder)
        if (texts := self._texts(pipeline)) is None or name is None:
            return
        limit = getattr(embedder, "max_length_tokens", None) or LENGTHS[-1]
        lengths = [tokens for tokens in LENGTHS if tokens <= limit]
        batch = partial(embedder.embed, kind="document", call=Call())
        for tokens, per_s, _ in by_length(batch, texts, lengths, embedder.batch_tokens, self._seconds / 8):
            self.timed.throughputs.append(Throughput("embedder", name, tokens, per_s))

    def _choose_settings(self, pipeline: Pipeline) -> None:
        """Try the embedder and the cross-encoder in several ways; all that follows is measured with the best."""
        texts, question = self._texts(pipeline), pipeline.corpus.queries()[0].text
        parts: dict[str, tuple[str, str, Sequence[str], int]] = {"embedder": ("dense", "models.embedder", (), 32)}
        if any(node.name == "precise" for node in pipeline.graph.nodes):
            parts["reranker"] = ("precise", "pipeline.stages.precise.use", backends(), 12)
        for part, (stage, prefix, others, n) in parts.items():
            built = pipeline.graph[stage].stage
            name = self._name(getattr(built, "embedder", built))
            if texts is None or name is None or not hasattr(getattr(built, "embedder", built), "batch_tokens"):
                continue
            tried = Part(part, name, prefix, others, texts(100, n), question)
            found = choose(tried, partial(self._built, stage), self._seconds / 8)
            self.timed.settings.append(found)
            self._tuned += [f"{prefix}.{key}={value}" for key, value in found.values.items()]

    def _texts(self, pipeline: Pipeline) -> Any:
        """`texts(tokens, n)`, by the embedder's tokenizer; None where it does not show it."""
        spans = getattr(_embedder(pipeline), "token_spans", None)
        if spans is None:
            return None
        text = " ".join(document.text for document, _ in zip(pipeline.corpus.documents(), range(60), strict=False))
        found = [(int(first), int(last)) for first, last in spans(text)]
        return lambda tokens, n: cut_texts(text, found, tokens, n)

    def _built(self, stage: str, words: Sequence[str]) -> Any:
        """The loaded embedder, or rerank, of a pipeline with these further words."""
        pipeline = self._compose("pipeline=every_kind", *self._scale.sample, *words)
        built = pipeline.graph[stage].stage
        built = getattr(built, "embedder", built)
        built.load()  # type: ignore[union-attr]
        return built

    def _chain(self, pipeline: Pipeline, count: Any) -> None:
        names = [node.name for node in pipeline.graph.nodes if node.name != "precise"]
        dear = [node.name for node in pipeline.graph.nodes if node.name == "precise"]
        steps = []
        for place, depth in enumerate(_DEPTHS):
            depths = dict.fromkeys(names, depth)
            if dear:  # what the cross-encoder reads is what the stage before it passes on
                depths[names[-1]] = min(depth, _PAIRS[place % len(_PAIRS)])
            steps.append(depths)
        found = climb(pipeline, steps, pipeline.corpus.queries(), count, 3 * self._seconds).points
        for node in pipeline.graph.nodes:
            if node.name not in ("bm25", "dense"):  # of searches, those over many documents tell more
                self._keep(self._key(node), found[node.name], node.stage)
        self._keep((AROUND, None), found[AROUND], None)

    def _key(self, node: Node) -> RowKey:
        kind = str(getattr(node.stage, "cost_kind", None) or node.name)
        return kind, self._name(node.stage) if kind == "cross_encoder" else None

    def _cross_encoder(self, pipeline: Pipeline) -> None:
        texts = self._texts(pipeline)
        node = next((node for node in pipeline.graph.nodes if node.name == "precise"), None)
        if node is None or texts is None:
            return
        stage, question = node.stage, pipeline.corpus.queries()[0].text
        name = self._name(stage)
        assert name is not None

        def read(documents: Sequence[str]) -> object:
            return stage.score([(Query("q", question), Document("d", text)) for text in documents], Call())  # type: ignore[union-attr]

        asked = len(stage.token_spans(question)) + 3  # type: ignore[union-attr]
        limit = getattr(stage, "max_length_tokens", None) or LENGTHS[-1]
        lengths = [tokens for tokens in LENGTHS if tokens + asked <= limit]
        for tokens, per_s, points in by_length(read, texts, lengths, 1024, self._seconds / 4):
            self.timed.throughputs.append(Throughput("reranker", name, tokens, per_s))
            pairs = [Point(Load(p.load.documents, p.load.documents * (tokens + asked), asked), p.ms) for p in points]
            self._keep(("cross_encoder", name), pairs, stage)

    def _many_documents(self, texts: Sequence[str], dim: int, root: Path) -> None:
        """Searches, fusion and dot products over made-up documents, in a folder that is removed afterwards."""
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="calibrate-", dir=root) as scratch:
            for size in self._scale.made_up:
                folder = Path(scratch) / str(size)
                write_made_up(folder, texts, size)
                words = [*_RANDOM, f"models.embedder.dim={dim}", "pipeline=many_documents", f"corpus.path={folder}"]
                words.append(f"storage.root={folder / 'home'}")
                with Pipeline.compose(words, self._dirs) as pipeline:
                    pipeline.load()
                    asked = [Query(f"q{place}", " ".join(text.split()[:9])) for place, text in enumerate(texts[:60])]
                    steps = [dict.fromkeys(("bm25", "dense", "fused"), depth) for depth in _DEEP if depth < size]
                    found = climb(pipeline, steps, asked, lambda text: len(text) // 4, self._seconds).points
                    for node in pipeline.graph.nodes:
                        self._keep(self._key(node), found[node.name], None)
                    self._keep((AROUND, None), found[AROUND], None)

    def _own_stages(self, own: Pipeline, count: Any) -> None:
        """Kinds that only the configured pipeline has: services, models of other kinds, stages of the user's own."""
        known = {kind for kind, _ in self.timed.points} | set(self.timed.missing)
        new = [node for node in own.graph.nodes if self._key(node)[0] not in known and node.kind == "rerank"]
        if not new:
            return
        try:
            own.load(self._progress, self._on_build)
            asked, _ = questions(own, 12)
            steps = [{name: depth for node in new for name in node.inputs} for depth in (5, 20)]
            found = climb(own, steps, asked, count, self._seconds)
        except OrchestratorError as error:
            for node in new:
                self.timed.missing[self._key(node)[0]] = str(error)
            return
        for node in new:
            self._keep(self._key(node), found.points[node.name], node.stage)
        self.timed.cost_usd += found.cost_usd

    def _corpus(self, corpus_words: Sequence[str], count: Any) -> dict[str, CorpusFigures]:
        with Pipeline.compose(["pipeline=bm25", *self._words, *corpus_words], self._dirs) as pipeline:
            pipeline.load(self._progress, self._on_build)
            asked, are_real = questions(pipeline)
            lengths = count_lengths(pipeline, asked, count) if asked else None
            corpus = pipeline.corpus
            if lengths is None:
                return {}
            if not are_real:
                log.warning("calibrate.no_questions", corpus=corpus.name, taken="the first words of its documents")
            found = climb(pipeline, [{"bm25": 100}, {"bm25": 1000}], asked, count, self._seconds / 2).points["bm25"]
            rows = [fit("bm25", None, found, f"calibrate, {corpus.name}")] if len(found) > 1 else []
            return {corpus.key: CorpusFigures(corpus.name, corpus.content_hash, lengths, rows)}

    def _rows(self, now: str) -> Iterator[StageCost]:
        for (kind, model), points in self.timed.points.items():
            if len(points) < 2:
                continue
            row = fit(kind, model, points, f"calibrate, {len(points)} times on {now[:10]}")
            yield row.of_model(self.timed.limits.get((kind, model)), self.timed.parameters.get((kind, model)))


def _embedder(pipeline: Pipeline) -> Any:
    return pipeline.graph["dense"].stage.embedder  # type: ignore[union-attr]
