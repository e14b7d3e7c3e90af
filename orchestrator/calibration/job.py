"""One calibration: what is measured, in which order, and what comes out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.calibration.corpora import questions, write_made_up
from orchestrator.calibration.ladder import climb
from orchestrator.calibration.own import Ways, corpus_figures_of, services_of, time_own_stages
from orchestrator.calibration.timed import Timed, model_of, row_key
from orchestrator.config.words import quote
from orchestrator.costs.cost import AROUND, PAIR_TOKENS, Load
from orchestrator.costs.fit import Point
from orchestrator.costs.kept import Calibration, this_machine
from orchestrator.costs.settings import Part, backends, choose
from orchestrator.costs.timing import LENGTHS, Throughput, by_length, cut_texts, each_ms
from orchestrator.errors import ConfigError
from orchestrator.loading import OnBuild, silent
from orchestrator.log import get_logger
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
_BATCH_TOKENS = 1024
"""Of a call, where a model does not say how large its batches are."""
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
        texts: that the embedder reads in each of the ways that it is tried.
        lengths: tokens of the documents that models are timed with.
    """

    seconds: float = 4.0
    sample: Sequence[str] = ("corpus=sample",)
    made_up: Sequence[int] = (2_000, 20_000)
    texts: int = 32
    lengths: Sequence[int] = LENGTHS


class Calibrating:
    """Measures this machine.

    Args:
        words: that choose the models.
        config_dirs: folders with configs of the user's own.
        cards: name of a model on the hub -> name of its card.
        scale: how much is measured.
        progress: told ("calibrate", steps done, steps in all).
        on_build: told before an index is built.
        remotes: whether services may be asked.
    """

    def __init__(
        self,
        words: Sequence[str],
        config_dirs: Sequence[Path],
        cards: Mapping[str, str],
        scale: Scale = Scale(),
        progress: Progress = no_progress,
        on_build: OnBuild = silent,
        *,
        remotes: bool = True,
    ) -> None:
        self._words = list(words)
        self._dirs, self._cards = [CONF, *config_dirs], dict(cards)
        self._scale, self._seconds, self._remotes = scale, scale.seconds, remotes
        self._progress, self._on_build, self._step = progress, on_build, 0
        self._tuned: list[str] = []
        self.timed = Timed()
        self._started = time.perf_counter()

    def run(self, own: Pipeline) -> Calibration:
        """Measure all: what is shipped, then what only `own` has, then the lengths of its corpus.

        Args:
            own: the configured pipeline.

        Raises:
            OrchestratorError: the corpus cannot be read, or a model cannot be loaded.
        """
        self._words.append(f"storage.root={quote(str(own.storage_root))}")
        own.open_corpus(self._progress)
        questions(own)  # what is wrong with either is told before minutes of measuring
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
            machine = _machine(pipeline)
            self._tell()
            self._many_documents(pipeline)
            self._tell()
            ways = Ways(self._cards, count, self._seconds, self._remotes, self._progress, self._on_build)
            time_own_stages(own, self.timed, ways)
            with self._bm25(own) as bm25:
                corpora = corpus_figures_of(bm25, ways)
            self._tell()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        took = round(time.perf_counter() - self._started, 1)
        rows = list(self.timed.rows(now[:10]))
        return Calibration(now, took, machine, rows, self.timed.settings, self.timed.throughputs, corpora)

    def _tell(self) -> None:
        self._progress("calibrate", self._step, STEPS)
        self._step += 1

    def _compose(self, *words: str) -> Pipeline:
        """The words of the job last: what it tries goes before what the user has set."""
        return Pipeline.compose([*self._words, *words], self._dirs)

    def _sample(self) -> Pipeline:
        """Every kind of stage over the sample corpus, without those whose model is not on this machine."""
        words = ["pipeline=every_kind", *self._scale.sample, "budget_ms=null", "cache.scores=false", *self._tuned]
        whole = self._compose(*words)
        self._ask_before(whole)
        dropped: dict[str, None] = {}
        for node in whole.graph.nodes:
            part = getattr(node.stage, "encoder", node.stage)
            if getattr(part, "at_hand", lambda: True)() or node.kind == "recall":
                continue
            for name in _LEARNS_FROM if node.name in _LEARNS_FROM else (node.name,):
                key = row_key(whole.graph[name], self._cards)
                dropped[name] = None
                if name == node.name:
                    self.timed.absent.add(key)
                self.timed.missing[key[0]] = f"{model_of(part, self._cards)} is not on this machine"
        return self._compose(*words, *(f"~pipeline.stages.{name}" for name in dropped)) if dropped else whole

    def _ask_before(self, whole: Pipeline) -> None:
        """Tell that a service will embed the sample, once; or refuse, where none may be asked."""
        services = services_of(whole.graph, self._cards)
        if services and not self._remotes:
            found = f"found false, but models stand on somebody else's machine: {', '.join(services)}"
            choices = "task.remotes=true, or models of this machine such as model@models.embedder=minilm"
            raise ConfigError("task.remotes", f"{found}; choices: {choices}")
        for service in services if self._step == 1 else ():
            log.info("calibrate.asks", service=service, what="all of the sample", switch="task.remotes=false")

    def _counter(self, pipeline: Pipeline) -> Any:
        """Tokens of a text, by the embedder's tokenizer where it shows it; else a token for every four bytes."""
        spans = getattr(_embedder(pipeline), "token_spans", None)
        return (lambda text: len(spans(text))) if spans else (lambda text: max(1, len(text.encode()) // 4))

    def _embedder(self, pipeline: Pipeline, count: Any) -> None:
        embedder, call = _embedder(pipeline), Call()
        asked = pipeline.corpus.queries()
        runs = [partial(embedder.embed, [query.text], kind="query", call=call) for query in asked]
        each_ms(runs[:5], 0.1)
        times = each_ms(runs, self._seconds)
        points = [
            Point(Load(1, count(query.text), count(query.text)), ms) for query, ms in zip(asked, times, strict=False)
        ]
        name = model_of(embedder, self._cards)
        self.timed.keep(("embed", name), points, embedder)
        self.timed.cost_usd += call.cost_usd
        if (texts := self._texts(pipeline)) is None or name is None:
            return
        limit = getattr(embedder, "max_length_tokens", None) or self._scale.lengths[-1]
        lengths = [tokens for tokens in self._scale.lengths if tokens <= limit]
        batch = partial(embedder.embed, kind="document", call=Call())
        batch_tokens = getattr(embedder, "batch_tokens", _BATCH_TOKENS)
        for tokens, per_s, _ in by_length(batch, texts, lengths, batch_tokens, self._seconds / 8):
            self.timed.throughputs.append(Throughput("embedder", name, tokens, per_s))

    def _choose_settings(self, pipeline: Pipeline) -> None:
        """Try the embedder and the cross-encoder in several ways; all that follows is measured with the best."""
        texts, question = self._texts(pipeline), pipeline.corpus.queries()[0].text
        few = max(2, self._scale.texts * 3 // 8)
        parts: dict[str, tuple[str, str, Sequence[str], int]] = {
            "embedder": ("dense", "models.embedder", (), self._scale.texts)
        }
        if any(node.name == "precise" for node in pipeline.graph.nodes):
            parts["reranker"] = ("precise", "pipeline.stages.precise.use", backends(), few)
        for part, (stage, prefix, others, n) in parts.items():
            built = _part(pipeline, stage)
            name = model_of(built, self._cards)
            if texts is None or name is None or not hasattr(built, "batch_tokens"):
                continue
            tried = Part(part, name, prefix, others, texts(100, n), question)
            found = choose(tried, built, partial(self._built, stage), self._seconds / 8)
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
        built = _part(self._compose("pipeline=every_kind", *self._scale.sample, *words), stage)
        built.load()
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
        found = climb(pipeline, steps, pipeline.corpus.queries(), count, 3 * self._seconds)
        self.timed.cost_usd += found.cost_usd
        for node in pipeline.graph.nodes:
            if node.name not in ("bm25", "dense"):  # of searches, those over many documents tell more
                self.timed.keep(row_key(node, self._cards), found.points[node.name], node.stage)
        self.timed.keep((AROUND, None), found.points[AROUND])

    def _cross_encoder(self, pipeline: Pipeline) -> None:
        texts = self._texts(pipeline)
        if texts is None or all(node.name != "precise" for node in pipeline.graph.nodes):
            return
        stage, question = _part(pipeline, "precise"), pipeline.corpus.queries()[0].text
        name = model_of(stage, self._cards)
        assert name is not None

        def read(documents: Sequence[str]) -> object:
            return stage.score([(Query("q", question), Document("d", text)) for text in documents], Call())

        asked = len(stage.token_spans(question)) + PAIR_TOKENS
        limit = getattr(stage, "max_length_tokens", None) or self._scale.lengths[-1]
        lengths = [tokens for tokens in self._scale.lengths if tokens + asked <= limit]
        for tokens, per_s, points in by_length(read, texts, lengths, _BATCH_TOKENS, self._seconds / 4):
            self.timed.throughputs.append(Throughput("reranker", name, tokens, per_s))
            pairs = [Point(Load(p.load.documents, p.load.documents * (tokens + asked), asked), p.ms) for p in points]
            self.timed.keep(("cross_encoder", name), pairs, stage)

    def _many_documents(self, sample: Pipeline) -> None:
        """Searches, fusion and dot products over made-up documents, in a folder that is removed afterwards."""
        texts = [document.full_text for document in sample.corpus.documents()]
        dim, model = _embedder(sample).dim, model_of(_embedder(sample), self._cards)
        sample.storage_root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="calibrate-", dir=sample.storage_root) as scratch:
            for size in self._scale.made_up:
                folder = Path(scratch) / str(size)
                write_made_up(folder, texts, size)
                words = [*_RANDOM, f"models.embedder.dim={dim}", "pipeline=many_documents"]
                words += [f"corpus.path={quote(str(folder))}", f"storage.root={quote(str(folder / 'home'))}"]
                with Pipeline.compose(words, self._dirs) as pipeline:
                    pipeline.load()
                    asked = [Query(f"q{place}", " ".join(text.split()[:9])) for place, text in enumerate(texts[:60])]
                    steps = [dict.fromkeys(("bm25", "dense", "fused"), depth) for depth in _DEEP if depth < size]
                    found = climb(pipeline, steps, asked, lambda text: len(text) // 4, self._seconds).points
                    for node in pipeline.graph.nodes:
                        kind = row_key(node, self._cards)[0]
                        self.timed.keep((kind, model if hasattr(node.stage, "embedder") else None), found[node.name])
                    self.timed.keep((AROUND, None), found[AROUND])

    def _bm25(self, own: Pipeline) -> Pipeline:
        """One search over the corpus of `own`, whatever else it is configured to."""
        language = f"corpus.language={quote(own.corpus_spec.language)}"
        return Pipeline(self._compose("pipeline=bm25", language).graph, own.corpus_spec, own.storage_root)


def _embedder(pipeline: Pipeline) -> Any:
    return _part(pipeline, "dense")


def _part(pipeline: Pipeline, stage: str) -> Any:
    """A stage, or the embedder of one that has it."""
    built = pipeline.graph[stage].stage
    return getattr(built, "embedder", built)


def _machine(pipeline: Pipeline) -> dict[str, Any]:
    """This machine, with device and backend of the cross-encoder, where it was measured."""
    stage = next((node.stage for node in pipeline.graph.nodes if node.name == "precise"), None)
    return this_machine(getattr(stage, "device", None) or "cpu", getattr(stage, "backend", None) or "onnx")
