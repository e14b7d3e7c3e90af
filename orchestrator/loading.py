"""What the stages of a pipeline need before they can answer: models, learned models, indexes, vectors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from orchestrator.corpora.corpus import DiskCorpus, corpus_key
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.corpora.sources import CorpusDocuments
from orchestrator.errors import ConfigError, DataError, named
from orchestrator.learned.indexes import default_folder, open_index
from orchestrator.learned.trained import ModelPlace
from orchestrator.stack.graph import Node, StageGraph, check_cut
from orchestrator.stage import Embed, Indexed, Progress, Trainable
from orchestrator.storage import current_generation

OnBuild = Callable[[str, str], None]
"""`on_build(stage, reason)`: an index is about to be built."""


def silent(stage: str, reason: str) -> None:
    """An OnBuild that tells nobody."""


class Loading:
    """Loads the stages of one graph, each once, and lets go of them.

    Args:
        graph: the stages.
        corpus: the documents to search.
        storage_root: where indexes, vectors and models live.
        words: of the command line that chose this stack, for messages that name a command.

    Attributes:
        learned_from: stage whose model is open -> hashes of the queries that it learned from.
        opens_models: whether the models that stages learned are opened; false for trainings that make their own.
        generations: stage whose index is open -> name of its generation.
    """

    def __init__(self, graph: StageGraph, corpus: CorpusSpec, storage_root: Path, words: Sequence[str]) -> None:
        self._graph, self._spec, self._root, self._words = graph, corpus, storage_root, tuple(words)
        self._loaded: set[str] = set()
        self._opened: set[str] = set()
        self.learned_from: dict[str, frozenset[str]] = {}
        self.opens_models = True
        self.generations: dict[str, str] = {}

    @property
    def loaded(self) -> frozenset[str]:
        """Names of the stages that are loaded, so that their score kinds are known."""
        return frozenset(self._loaded)

    def load_stage(self, node: Node) -> None:
        """Load a stage, and those that stand in for it when it fails; does nothing the second time.

        Raises:
            OrchestratorError: a model or a library is missing, or an argument is wrong.
        """
        for stand_in in node.fallbacks:
            self.load_stage(stand_in)
        if node.name in self._loaded:
            return
        embedder = getattr(node.stage, "embedder", None)
        if "vectors" in node.needs and embedder is not None:
            _load(embedder, f"{node.path}.use.embedder")
        _load(node.stage, f"{node.path}.use")
        check_cut(node, node.stage.score_kind)  # of some stages the model says what it is
        self._loaded.add(node.name)

    def place_of_model(self, name: str) -> ModelPlace | None:
        """Where the model of stage `name` lies; None for a stage that learns nothing. Binds the stage to its inputs."""
        node = self._graph[name]
        if not isinstance(node.stage, Trainable):
            return None
        return ModelPlace(node, self._graph, self._spec, self._root, self._words)

    def open_model(self, node: Node, content_hash: str | None) -> None:
        """Open what a stage has learned; `content_hash` is that of the corpus, None for documents of a caller."""
        wanted = self.opens_models and node.name not in self.learned_from
        place = self.place_of_model(node.name) if wanted else None
        if place is not None:
            place.open(self.loaded, content_hash)
            self.learned_from[node.name] = place.learned_from

    def open_indexes(
        self,
        graph: StageGraph,
        corpus: DiskCorpus,
        progress: Progress,
        on_build: OnBuild,
        *,
        force: bool = False,
        verify: bool = False,
    ) -> CorpusDocuments:
        """Vectors and indexes that the stages of `graph` need, built where they are missing."""
        documents = CorpusDocuments(corpus)
        for node in graph.all_nodes:
            if "vectors" in node.needs and node.kind != "recall":
                documents.prepare(cast(Embed, node.stage.embedder), progress)  # type: ignore[union-attr]
            if isinstance(node.stage, Indexed):
                with named(node.name):
                    opened = open_index(
                        node.stage,
                        corpus,
                        self._root,
                        node.name,
                        path=_user_path(node.stage),
                        progress=progress,
                        on_build=partial(on_build, node.name),
                        force=force,
                        verify=verify,
                    )
                self.generations[node.name] = opened.directory.name
        return documents

    def open_statistics(self, node: Node, corpus: Callable[[], DiskCorpus]) -> None:
        """For documents that the caller brings: the index of a rerank, when there is one."""
        if node.name not in self._opened and isinstance(node.stage, Indexed):
            self._opened.add(node.name)
            if self._is_built(node.stage):
                open_index(node.stage, corpus(), self._root, node.name, path=_user_path(node.stage))

    def verify_vectors(self, corpus: DiskCorpus) -> None:
        """Read every kept vector again; where some are damaged, the corpus looks them up anew."""
        from orchestrator.rows.vectors import open_vectors

        for embedder in {
            id(e): e for node in self._graph.all_nodes if (e := getattr(node.stage, "embedder", None))
        }.values():
            if open_vectors(self._root, embedder).verify() is not None:
                corpus.forget_vectors()

    def close(self) -> None:
        """Let go of what is loaded."""
        for node in self._graph.all_nodes:
            for held in (node.stage, getattr(node.stage, "embedder", None)):
                close = getattr(held, "close", None)
                if node.name in self._loaded and close is not None:
                    close()
        self._loaded.clear()
        self._opened.clear()
        self.learned_from.clear()
        self.generations.clear()

    def _is_built(self, stage: Indexed) -> bool:
        try:
            folder = _user_path(stage) or default_folder(stage, corpus_key(self._spec), self._root)
        except (ConfigError, DataError):  # no such corpus: the documents of the caller are all there is
            return False
        return current_generation(folder) is not None


def _load(built: object, path: str) -> None:
    """Load what stands at `path`; where one of its own arguments is wrong, the message begins with the whole path."""
    load = getattr(built, "load", None)
    if load is None:
        return
    try:
        load()
    except ConfigError as error:
        if error.path.partition(".")[0] not in inspect.signature(type(built)).parameters:
            raise
        raise ConfigError(f"{path}.{error.path}", error.detail) from error


def _user_path(stage: object) -> Path | None:
    """Where the user wants a stage's index, or None to leave it to the storage root."""
    path = getattr(stage, "path", None)
    return Path(path).expanduser() if path else None
