"""A pipeline ready to answer: the graph, its corpus, and what has to be loaded for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from orchestrator.answers.telemetry import Spans
from orchestrator.answers.trace import Result
from orchestrator.corpora.corpus import DiskCorpus, corpus_key, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.corpora.sources import GivenDocuments, as_documents
from orchestrator.costs.node_cost import NodeCosts
from orchestrator.errors import PipelineError, check_ms
from orchestrator.learned.record import learned_hashes
from orchestrator.learned.trained import ModelPlace, query_hashes
from orchestrator.lint import Facts, Finding, lint
from orchestrator.lint.facts import Costs
from orchestrator.lint.gather import corpus_facts
from orchestrator.loading import Loading, OnBuild, silent
from orchestrator.models import is_hub_off
from orchestrator.ranking import ranked_from_pairs
from orchestrator.running.pace import shared_paces
from orchestrator.running.runner import Runner
from orchestrator.running.scoring import KeptScores
from orchestrator.running.stage_key import stage_key
from orchestrator.running.stage_results import SharedResults, StageResults
from orchestrator.running.steps import Documents
from orchestrator.stack.graph import StageGraph
from orchestrator.stage import Progress, Stage, no_progress
from orchestrator.types import Document, Query

if TYPE_CHECKING:
    from omegaconf import DictConfig

_WARM_UP_WORDS, _WARM_UP_CHARS = 8, 80


class Pipeline:
    """Searches a corpus, or reranks documents that the caller brings.

    Everything heavy is loaded at the first call that needs it, or by `load()`. Not safe for several threads until
    it is loaded; safe afterwards.

    Example:
        >>> p = Pipeline.compose(["+scenario=low_latency"])
        >>> p.search("what causes glaucoma?").doc_ids
        >>> p.rerank("what causes glaucoma?", ["Pressure in the eye ...", "Vitamin C ..."]).doc_ids

    Args:
        graph: the stages.
        corpus: the documents to search.
        storage_root: where indexes, vectors and models live.
        budget_ms: of one query, from its coming to its answer: what does not fit is left out, and the answer says so.
        words: of the command line that chose this stack, for messages that name a command.
        kept: where scores of models are kept between questions; None keeps none.
        otel: whether answers are told as OpenTelemetry spans.
        results: where results of whole stages are kept between jobs; None keeps none.
    """

    def __init__(
        self,
        graph: StageGraph,
        corpus: CorpusSpec,
        storage_root: Path,
        budget_ms: float | None = None,
        words: Sequence[str] = (),
        kept: KeptScores | None = None,
        otel: bool = False,
        results: StageResults | None = None,
    ) -> None:
        self.graph = graph
        self.corpus_spec = corpus
        self.storage_root = storage_root
        check_ms("budget_ms", budget_ms)
        self.budget_ms = budget_ms
        self.words = tuple(words)
        self.otel = otel
        self._spans: Spans | None = None
        self._corpus: DiskCorpus | None = None
        self._runner: Runner | None = None
        self._documents: Documents | None = None
        self._loading = Loading(graph, corpus, storage_root, self.words)
        self._kept, self._results = kept, results
        self._is_warm = False

    @classmethod
    def compose(
        cls, overrides: Sequence[str] = (), config_dir: str | Path | Sequence[str | Path] | None = None
    ) -> Self:
        """The pipeline that `orchestrate <overrides>` would run.

        Args:
            overrides: as on the command line, for example `["+scenario=low_latency", "corpus.path=docs"]`.
            config_dir: a folder with configs of your own, as `--config-dir` takes it, or several.

        Raises:
            ConfigError: a value is wrong. A key or a file that Hydra cannot find raises Hydra's own error.
        """
        from hydra import compose, initialize_config_module

        from orchestrator.config import schema, searchpath
        from orchestrator.config.words import quote, stack_words

        schema.register()
        searchpath.register()
        folders = [config_dir] if isinstance(config_dir, str | Path) else list(config_dir or ())
        paths = ",".join(quote(f"file://{Path(folder).resolve()}") for folder in folders)
        extra = [f"hydra.searchpath=[{paths}]"] if folders else []
        flags = [word for folder in folders for word in ("--config-dir", str(folder))]
        with (
            _no_other_hydra(),
            initialize_config_module("orchestrator.conf", version_base="1.3", job_name="orchestrate"),
        ):
            cfg, chosen = compose("config", overrides=[*extra, *overrides]), list(overrides)
            if cfg.need.auto:
                from orchestrator.deciding.planning import decide_for, decided

                chosen = decided(overrides, decide_for(cfg, overrides, flags))
                cfg = compose("config", overrides=[*extra, *chosen])
            return cls.from_config(cfg, [*flags, *stack_words(chosen)])

    @classmethod
    def from_config(cls, cfg: DictConfig, words: Sequence[str] | None = None) -> Self:
        """The pipeline of a composed configuration, with nothing loaded; `words` default to this command's."""
        from orchestrator.config.build import build_graph
        from orchestrator.config.corpus import build_corpus, resolve_language
        from orchestrator.config.places import build_score_cache, build_stage_results, storage_root
        from orchestrator.config.words import given_words

        resolve_language(cfg)
        chosen = given_words() if words is None else words
        graph, corpus, root = build_graph(cfg), build_corpus(cfg), storage_root(cfg)
        kept, results = build_score_cache(cfg), build_stage_results(cfg)
        return cls(graph, corpus, root, cfg.budget_ms, chosen, kept, cfg.log.otel, results)

    def lint(self, costs: Costs | None = None) -> list[Finding]:
        """What may not be meant, and what a run on this machine would miss, found without loading anything.

        Args:
            costs: what stages cost; None is what was measured on this machine, else the shipped reference figures.
        """
        return lint(self.graph, self.facts(costs))

    def facts(self, costs: Costs | None = None) -> Facts:
        """What the lint goes by beside the graph: budget, machine, corpus as far as it is in the store, and costs."""
        corpus = corpus_facts(self.corpus_spec, self.storage_root)
        key = None if corpus.problem else corpus_key(self.corpus_spec)
        costs = costs or NodeCosts.of_machine(self.graph, self.storage_root, key, corpus.content_hash)
        places = {node.name: self.place_of_model(node.name) for node in self.graph.nodes} if not corpus.problem else {}
        untrained = {name: why for name, place in places.items() if place and (why := place.why_missing())}
        return Facts(
            self.corpus_spec.language,
            self.budget_ms,
            corpus,
            untrained,
            costs.predicted_ms,
            costs.figures,
            is_hub_off=is_hub_off(),
            around_ms=costs.around_ms,
        )

    @property
    def corpus(self) -> DiskCorpus:
        """The documents, opened at first use."""
        return self.open_corpus()

    def open_corpus(self, progress: Progress = no_progress) -> DiskCorpus:
        """The documents; read into the store first when they are new or have changed."""
        if self._corpus is None:
            self._corpus = open_corpus(self.corpus_spec, self.storage_root, progress)
        return self._corpus

    def fail_with_stages(self) -> Self:
        """Let a question fail with a stage on somebody else's machine, where its `on_error` says nothing.

        For figures of a stack: those of one that did without a stage are others. Called before anything is loaded.
        """
        self.graph = self.graph.failing_with_stages()
        return self

    def untrained(self) -> Self:
        """Open no model that a stage has learned: trainings make their own. Called before anything is loaded."""
        self._loading.opens_models = False
        return self

    def running(self, graph: StageGraph) -> Runner:
        """A runner without a budget of another graph of this pipeline's stages, or of stand-ins for some of them."""
        self.load()
        assert self._documents is not None
        return Runner(graph, self._documents, kept=self._kept)

    def load(
        self,
        progress: Progress = no_progress,
        on_build: OnBuild = silent,
        *,
        force: bool = False,
        verify: bool = False,
    ) -> Self:
        """Load models and open indexes; what is missing or out of date is built first.

        Args:
            progress: told about long work.
            on_build: told before an index is built, with the reason.
            force: build indexes again even when they are up to date.
            verify: read every index file and vector again and compare with the checksums; what is damaged is told in
                the log and made again.

        Raises:
            OrchestratorError: a model, a file or an index is missing or damaged; the message says which and what to do.
        """
        if self._runner is not None and not force:
            return self
        self._open_spans()
        corpus = self.open_corpus(progress)
        loading = self._loading
        for node in self.graph.nodes:  # all models first: one that cannot be had is told before minutes of indexing
            loading.load_stage(node)
        loading.learned_from.clear()
        for node in self.graph.nodes:
            loading.open_model(node, corpus.content_hash)
        if verify:  # first, so that what is damaged is computed again for the indexes
            loading.verify_vectors(corpus)
        documents = loading.open_indexes(self.graph, corpus, progress, on_build, force=force, verify=verify)
        self._documents, self._runner = documents, self._new_runner(self.graph, documents)
        if self._kept is not None:
            self._kept.load()
        if self._runner.has_limits and self._loading.opens_models:
            self._runner.warm_up(self._warm_up_query(corpus))
        return self

    def _new_runner(self, graph: StageGraph, documents: Documents) -> Runner:
        corpus = corpus_key(self.corpus_spec) if documents.in_corpus else ""
        return Runner(graph, documents, self.budget_ms, self._kept, shared_paces(self.storage_root), corpus)

    def _warm_up_query(self, corpus: DiskCorpus) -> Query:
        """The first words of the first document: a question that every recall can work on."""
        for document in corpus.documents():
            words = document.full_text.split()[:_WARM_UP_WORDS]
            return Query("warm-up", " ".join(words)[:_WARM_UP_CHARS], corpus.language)
        return Query("warm-up", "warm-up")

    def place_of_model(self, name: str) -> ModelPlace | None:
        """Where the model of stage `name` lies; None for a stage that learns nothing. Binds the stage to its inputs."""
        return self._loading.place_of_model(name)

    def upstream(
        self,
        name: str,
        stand_in: Stage,
        progress: Progress = no_progress,
        on_build: OnBuild = silent,
        *,
        load: bool = True,
    ) -> Runner:
        """A runner that ends at stage `name` with another object in its place: what sees all that the stage would.

        Stages after it are not loaded, and the stage itself needs no model.

        Args:
            name: the stage.
            stand_in: has the one method of a stage of its kind.
            progress: told about long work.
            on_build: told before an index is built.
            load: whether the stage itself, and what it needs of the corpus, is loaded too: for a stand-in that asks it.
        """
        graph = self.graph.upto(name)
        corpus = self.open_corpus(progress)
        stood_in = StageGraph((*graph.nodes[:-1], replace(graph.result, stage=stand_in, fallbacks=())))
        for node in graph.nodes if load else graph.nodes[:-1]:
            self._loading.load_stage(node)
        for node in graph.nodes[:-1]:
            self._loading.open_model(node, corpus.content_hash)
        bare = StageGraph((*graph.nodes[:-1], replace(graph.result, stage=stand_in, needs=frozenset(), fallbacks=())))
        documents = self._loading.open_indexes(graph if load else bare, corpus, progress, on_build)
        return Runner(stood_in if load else bare, documents)

    def learned_from(self, queries: Sequence[Query]) -> dict[str, int]:
        """Stage that learned -> how many of `queries` its model learned from; figures on those flatter it."""
        seen = self.seen(queries)
        return {name: sum(query.query_id in ids for query in queries) for name, ids in seen.items()}

    def seen(self, queries: Sequence[Query], upto: str | None = None) -> dict[str, frozenset[str]]:
        """Stage that learned -> ids of those of `queries` that its model learned from.

        Args:
            queries: any.
            upto: only this stage and those before it; None asks all.
        """
        nodes = self.graph.upto(upto).nodes if upto else self.graph.nodes
        tuned = {node.name: learned_hashes(node.stage) for node in nodes}
        none: frozenset[str] = frozenset()
        trained = {name: hashes for name, hashes in self._loading.learned_from.items() if name in tuned}
        known = {name: hashes | trained.get(name, none) for name, hashes in tuned.items()}
        learned = {name: hashes for name, hashes in known.items() if hashes or name in trained}
        asked = {query.query_id: query_hashes([query])[0] for query in queries} if learned else {}
        return {
            name: frozenset(key for key, mark in asked.items() if mark in hashes) for name, hashes in learned.items()
        }

    @property
    def loaded(self) -> frozenset[str]:
        """Names of the stages that are loaded, so that their score kinds are known."""
        return self._loading.loaded

    def search(self, query: str | Query, *, budget_ms: float | None = None, enforce_budget: bool = True) -> Result:
        """The corpus's best documents for one query, within the budget where there is one.

        Args:
            query: the question.
            budget_ms: in place of the pipeline's own; None is that.
            enforce_budget: False lifts it, and `max_ms` of stages: the whole stack answers, however long it takes.

        Raises:
            StageError: a stage failed.
        """
        return self.search_many([query], budget_ms=budget_ms, enforce_budget=enforce_budget)[0]

    def search_many(
        self,
        queries: Iterable[str | Query],
        *,
        read_documents: bool = True,
        budget_ms: float | None = None,
        enforce_budget: bool = True,
        use_kept: bool = True,
        reuse: bool = False,
    ) -> list[Result]:
        """One result a query. With a budget each is answered by itself; else models see all queries of a stage at once.

        Args:
            queries: texts, or Query objects with ids.
            read_documents: whether the results hold the text of their documents.
            budget_ms: of each query, in place of the pipeline's own.
            enforce_budget: whether the budget, and `max_ms` of stages, are kept by leaving things out.
            use_kept: whether scores that are kept from earlier questions may be used.
            reuse: whether the answers are for figures alone: each stage is asked for each query by itself, so that
                nothing of an answer depends on the others, and whole results of earlier jobs are used again.
        """
        self.load()
        assert self._runner is not None
        asked = [as_query(query, place) for place, query in enumerate(queries)]
        if budget_ms is not None and enforce_budget and not self._runner.is_warm:
            self._runner.warm_up(self._warm_up_query(self.corpus))
        run = partial(
            self._runner.run,
            asked,
            read_documents=read_documents,
            budget_ms=budget_ms,
            enforce_budget=enforce_budget,
            use_kept=use_kept,
            by_query=reuse,
            shared=self._share() if reuse and use_kept else None,
        )
        return self._told(asked, run)

    def _share(self) -> SharedResults | None:
        """Results of the stages as they are now, their models and indexes included; None where none are kept."""
        if self._results is None:
            return None
        corpus, generations = self.corpus.content_hash, self._loading.generations
        nodes = self.graph.nodes
        keys = {node.name: stage_key(node, self.graph, corpus, generations.get(node.name)) for node in nodes}
        return SharedResults(self._results, keys)

    def rerank(
        self,
        query: str | Query,
        documents: Sequence[str | Document | Mapping[str, object]],
        *,
        budget_ms: float | None = None,
        enforce_budget: bool = True,
    ) -> Result:
        """The caller's documents in the order of this pipeline's rerank stages; recall and fusion do not run.

        Args:
            query: the question.
            documents: texts (their ids are "0", "1", ... in the order given), Document objects, or mappings with
                `doc_id` (or `_id`), `text`, perhaps `title`, and payload: under `metadata`, or what else they hold. A
                stage that reads the corpus's statistics has them where an index of the corpus has been built already;
                none is built here.
            budget_ms: in place of the pipeline's own; None is that.
            enforce_budget: as for `search`.

        Raises:
            PipelineError: the pipeline has no rerank stage.
            ValueError: an id stands twice, or a mapping lacks its text.
        """
        replaced, graph = self.graph.without_recall()
        for node in graph.nodes:
            if node.kind == "recall":
                raise PipelineError(node.path, "searches a corpus beside a rerank; such a pipeline takes no documents")
            self._loading.load_stage(node)
        for node in graph.all_nodes:
            if node.stands_for is None:
                self._loading.open_model(node, None)
            if self._runner is None:
                self._loading.open_statistics(node, self.open_corpus)
        held = as_documents(documents)
        incoming = ranked_from_pairs(
            "supplied", [(document.doc_id, 1.0 / rank) for rank, document in enumerate(held, start=1)], "rank"
        )
        runner = self._new_runner(graph, GivenDocuments(held, self.storage_root))
        asked, given = as_query(query, 0), {name: [incoming] for name in replaced}
        is_limited = enforce_budget and (runner.has_limits or budget_ms is not None)
        if is_limited and not self._is_warm and held:
            runner.warm_up(asked, given)
            self._is_warm = True
        run = partial(runner.run, [asked], given, budget_ms=budget_ms, enforce_budget=enforce_budget)
        return self._told([asked], run)[0]

    def _told(self, queries: Sequence[Query], answer: Callable[[], list[Result]]) -> list[Result]:
        """What `answer` returns, told as spans where that is wanted."""
        self._open_spans()
        return answer() if self._spans is None else self._spans.around(queries, answer)

    def _open_spans(self) -> None:
        if self.otel and self._spans is None:
            self._spans = Spans()

    def close(self) -> None:
        """Let go of models, indexes and files; spans are sent, within seconds."""
        if self._spans is not None:
            self._spans.close()
            self._spans = None
        self._loading.close()
        if self._corpus is not None:
            self._corpus.close()
        self._corpus = self._runner = self._documents = None
        self._is_warm = False
        shared_paces(self.storage_root).save()
        if self._kept is not None:
            self._kept.close()
        if self._results is not None:
            self._results.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _no_other_hydra() -> Iterator[None]:
    """Hydra as it was before a command, or the user's own program, started it; theirs is there again afterwards."""
    from hydra.core.global_hydra import GlobalHydra

    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def as_query(query: str | Query, place: int) -> Query:
    """A Query with an id; a bare text gets `q<place from 1>`."""
    return query if isinstance(query, Query) else Query(f"q{place + 1}", query)
