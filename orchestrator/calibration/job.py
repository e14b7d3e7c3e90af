"""One calibration: what is measured, in which order, and what comes out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.calibration.corpora import questions
from orchestrator.calibration.networks import part_of, texts_of, time_cross_encoder, time_embedder, token_counter
from orchestrator.calibration.own import Ways, corpus_figures_of, services_of, time_own_stages
from orchestrator.calibration.scale import USUAL, Scale
from orchestrator.calibration.stacks import time_chain, time_searches
from orchestrator.calibration.timed import Timed, model_of, row_key
from orchestrator.config.words import quote
from orchestrator.costs.kept import Calibration, this_machine
from orchestrator.costs.settings import Part, backends, choose
from orchestrator.errors import ConfigError
from orchestrator.loading import OnBuild, silent
from orchestrator.log import get_logger
from orchestrator.pipeline import Pipeline
from orchestrator.stage import Progress, no_progress

log = get_logger()

CONF = Path(__file__).parent / "conf"
STEPS = 5
"""Of the progress."""
_LEARNS_FROM = ("shortlist", "learned")
"""The shipped weights of the learned rerank read late interaction's scores: both are measured, or neither."""


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
        scale: Scale = USUAL,
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
        rest = self.timed, self._cards, self._scale
        own.open_corpus(self._progress)
        questions(own)  # what is wrong with either is told before minutes of measuring
        self._tell()
        with self._sample() as pipeline:
            pipeline.load(self._progress, self._on_build)
            self._tell()
            self._choose_settings(pipeline)
        with self._sample() as pipeline:  # once more, with the settings chosen
            pipeline.load(self._progress, self._on_build)
            count = token_counter(pipeline)
            self._tell()
            time_embedder(pipeline, count, *rest)
            time_chain(pipeline, count, *rest)
            time_cross_encoder(pipeline, *rest)
            machine = _machine(pipeline)
            self._tell()
            time_searches(pipeline, self._alone, *rest)
            self._tell()
            ways = Ways(self._cards, count, self._seconds, self._remotes, self._progress, self._on_build)
            with self._bm25(own) as bm25:
                corpora = corpus_figures_of(bm25, ways)
            time_own_stages(own, bm25.graph["bm25"], self.timed, ways)
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

    def _alone(self, words: Sequence[str]) -> Pipeline:
        """Nothing of what chooses the user's models."""
        return Pipeline.compose(words, self._dirs)

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
            told = {"what": "all of the sample", "cost": "not in the sum that is told afterwards"}
            log.info("calibrate.asks", service=service, **told, switch="task.remotes=false")

    def _choose_settings(self, pipeline: Pipeline) -> None:
        """Try the embedder and the cross-encoder in several ways; all that follows is measured with the best."""
        texts, question = texts_of(pipeline), pipeline.corpus.queries()[0].text
        few = max(2, self._scale.texts * 3 // 8)
        parts: dict[str, tuple[str, str, Sequence[str], int]] = {
            "embedder": ("dense", "models.embedder", (), self._scale.texts)
        }
        if any(node.name == "precise" for node in pipeline.graph.nodes):
            parts["reranker"] = ("precise", "pipeline.stages.precise.use", backends(), few)
        for part, (stage, prefix, others, n) in parts.items():
            built = part_of(pipeline, stage)
            name = model_of(built, self._cards)
            if texts is None or name is None or not hasattr(built, "batch_tokens"):
                continue
            tried = Part(part, name, prefix, others, texts(100, n), question)
            found = choose(tried, built, partial(self._built, stage), self._seconds / 8)
            self.timed.settings.append(found)
            self._tuned += tried.words(found.values)

    def _built(self, stage: str, words: Sequence[str]) -> Any:
        """The loaded embedder, or rerank, of a pipeline with these further words."""
        built = part_of(self._compose("pipeline=every_kind", *self._scale.sample, *words), stage)
        built.load()
        return built

    def _bm25(self, own: Pipeline) -> Pipeline:
        """One search over the corpus of `own`, whatever else it is configured to."""
        language = f"corpus.language={quote(own.corpus_spec.language)}"
        return Pipeline(self._compose("pipeline=bm25", language).graph, own.corpus_spec, own.storage_root)


def _machine(pipeline: Pipeline) -> dict[str, Any]:
    """This machine, with device and backend of the cross-encoder, where it was measured."""
    stage = next((node.stage for node in pipeline.graph.nodes if node.name == "precise"), None)
    return this_machine(getattr(stage, "device", None) or "cpu", getattr(stage, "backend", None) or "onnx")
