"""Models that stages learned: where they lie, written whole, checked before they serve."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from orchestrator import storage
from orchestrator.corpora.corpus import corpus_key
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError, IndexStateError, ModelNotFoundError
from orchestrator.learned.manifest import Manifest, read_manifest
from orchestrator.log import get_logger
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stage import Indexed, Json, Trainable
from orchestrator.types import Query

log = get_logger()


class ModelPlace:
    """One trainable stage of a pipeline, and the folder of its model.

    Unless the user names a folder, it depends on the corpus (name and place), the stage, and the classes of the
    stages it sees: training one stack leaves the models of others alone. What else differs is named when it is opened.

    Args:
        node: a stage that is Trainable.
        graph: the whole pipeline.
        corpus: what the pipeline searches.
        root: where state lives.
        words: of the command line that made the pipeline, for messages.

    Attributes:
        learned_from: hashes of the queries that the model learned from; known once it is open.
    """

    def __init__(self, node: Node, graph: StageGraph, corpus: CorpusSpec, root: Path, words: Sequence[str]) -> None:
        self.node, self._graph, self._corpus = node, graph, corpus
        self._root, self._words = root, tuple(words)
        self.learned_from: frozenset[str] = frozenset()
        self.stage = cast(Trainable, node.stage)
        self._sources = graph.sources(node.name)
        self.stage.bind(self._sources)

    @property
    def folder(self) -> Path:
        """Where the generations of the model lie."""
        path = getattr(self.stage, "model_path", None)
        if path:
            return Path(path).expanduser()
        stack: list[Json] = [type(self.stage).__name__]
        stack += [[name, type(self._graph[name].stage).__name__] for name in self._sources]
        folder = f"{storage.slug(self.node.name)}-{storage.stable_hash(stack, 8)}"
        return self._root / "trained" / corpus_key(self._corpus) / folder

    def settings(self, loaded: Collection[str]) -> dict[str, Json]:
        """What the model depends on; of the inputs only those that are `loaded`, whose kinds are known."""
        inputs: dict[str, Json] = {name: _identity(self._graph[name]) for name in self._sources if name in loaded}
        settings = {"kind": self.node.kind, "inputs": inputs, **self.stage.model_settings()}
        return cast(dict[str, Json], json.loads(json.dumps(settings)))

    def open(self, loaded: Collection[str], content_hash: str | None) -> None:
        """Let the stage serve with the model in its folder, or where there is none with one that its class brings.

        An attribute `shipped_model` of the stage, where it is not None, is the folder of a model for corpora that
        nobody trained one for.

        Args:
            loaded: stages whose score kinds are known; others are not compared.
            content_hash: of the corpus; another one in the manifest is told in the log. None when not known.

        Raises:
            ModelNotFoundError: there is none; the message has the command that trains one.
            ConfigError: it was trained for something else; the message names each difference.
            IndexStateError: it is damaged.
        """

        def use(directory: Path) -> Manifest:
            manifest = self._checked(directory, loaded)
            self.stage.open_model(directory)
            return manifest

        manifest = storage.use_current(self.folder, use)
        shipped = self._shipped
        general = manifest is None and shipped is not None
        if general:
            manifest = use(cast(Path, shipped))
        if manifest is None:
            raise self._missing()
        hashes = cast(Sequence[str], manifest.about.get("query_hashes") or ())
        self.learned_from = frozenset(hashes)
        if not general and content_hash not in (None, manifest.content_hash):
            log.info("model.other_corpus", stage=self.node.name, trained_on=manifest.corpus, serves=self._corpus.name)

    def why_missing(self) -> str | None:
        """Why there is nothing to serve with, as far as it is known with nothing loaded; None where there is something.

        Raises:
            ConfigError: the path of the corpus names nothing.
            DataError: its folder holds no documents.
        """
        if storage.current_generation(self.folder) is not None:
            return None
        reason = "nothing was trained for it"
        if self._shipped is not None:
            if getattr(self.stage, "embedder", None) is not None:
                return None  # whether the shipped model fits, its embedder tells once it is loaded
            try:
                self._checked(self._shipped, ())
            except ModelNotFoundError:
                reason += ", and the model that comes with the package does not fit"
            else:
                return None
        return f"learns from judged queries, and {reason}. Train it: {self.command}. Or end without it: {self._without}"

    @property
    def _shipped(self) -> Path | None:
        """The model that comes with the stage's class, for corpora that none was trained for."""
        return None if getattr(self.stage, "model_path", None) else getattr(self.stage, "shipped_model", None)

    def write(self, manifest: Manifest, folder: Path | None = None) -> Path:
        """Write the stage's model with its manifest, in place of the one before; returns the folder.

        Args:
            manifest: of the model.
            folder: where; None is the place from which the stage serves.

        Raises:
            ConfigError: the folder holds something else.
        """
        target = folder or self.folder
        foreign = storage.foreign_entries(target)
        if foreign and not (target / storage.CURRENT).exists():
            found = f"{target} holds {', '.join(foreign[:5])}"
            raise ConfigError(
                f"{self.node.path}.use.path", f"{found}; expected an empty folder, a model, or nothing yet"
            )
        with (
            storage.locked(target / storage.LOCK),
            storage.new_generation(target) as directory,
        ):
            self.stage.write_model(directory)
            manifest.write(directory, ())
        return target

    @property
    def command(self) -> str:
        """The command line that trains this model."""
        return shlex.join(["orchestrate", "train", "fusion", *self._words])

    def _checked(self, directory: Path, loaded: Collection[str]) -> Manifest:
        found = read_manifest(directory)
        damage = "no manifest that this version can read" if found is None else found.damage(directory, verify=True)
        if found is None or damage:
            raise IndexStateError(
                f"{self.node.path}.use: model in {directory}: {damage}. Train it again: {self.command}"
            )
        expected = Manifest(self.settings(loaded), found.corpus, found.content_hash, found.n_documents)
        unknown = set(self._sources) - set(loaded)
        inputs = cast(Mapping[str, Json], found.settings.get("inputs") or {})
        compared = {name: value for name, value in inputs.items() if name not in unknown}
        comparable = dataclasses.replace(found, settings={**found.settings, "inputs": compared})
        if directory == self._shipped:
            comparable, expected = (
                dataclasses.replace(manifest, settings=_structure(manifest.settings))
                for manifest in (comparable, expected)
            )
        differences = comparable.differences(expected)
        if differences and directory == self._shipped:
            raise self._missing("the model that comes with the package does not fit: " + "; ".join(differences).strip())
        if differences:
            raise self._mismatch(found, differences)
        return found

    def _mismatch(self, found: Manifest, differences: Sequence[str]) -> ConfigError:
        first = f"the model in {self.folder}, trained on '{found.corpus}', does not fit this pipeline"
        last = f"choices: train it again ({self.command}), another path, or the stack it was trained for"
        return ConfigError(f"{self.node.path}.use.path", "\n".join([first, *differences, last]))

    @property
    def _without(self) -> str:
        """The override that leaves the order to the stages before."""
        group = "fusion" if self.node.kind == "fusion" else "rerank"
        return f"{group}@{self.node.path}.use={'rrf' if group == 'fusion' else 'null'}"

    def _missing(self, *reasons: str) -> ModelNotFoundError:
        choices = [
            f"train it: {self.command}",
            f"end without it: {self._without}",
        ]
        return ModelNotFoundError(
            f"{self.node.path} ({type(self.stage).__name__}), which learns from judged queries,",
            [str(self.folder), *reasons],
            choices,
        )


def _structure(settings: Mapping[str, Json]) -> dict[str, Json]:
    """What a model that ships depends on: features, kinds of scores, language; not which models made the scores.

    Its features are standardised within the query, so that it serves a tuned or another encoder too.
    """
    inputs = cast(Mapping[str, Mapping[str, Json]], settings.get("inputs") or {})
    analysis = cast(Mapping[str, Json], settings.get("analyzer") or {})
    return {
        **{name: settings.get(name) for name in ("kind", "features", "features_version")},
        "inputs": {name: {"score_kind": value.get("score_kind")} for name, value in inputs.items()},
        "analyzer": {"stemmer": str(analysis.get("stemmer")).partition(" ")[0], "segmenter": analysis.get("segmenter")},
    }


def query_hashes(queries: Iterable[Query]) -> list[str]:
    """A short hash of each query's text, sorted: enough to notice a query that a model learned from."""
    return sorted({storage.stable_hash(query.text) for query in queries})


def _identity(node: Node) -> Json:
    """What the scores of a stage are: their kind, and the model or the index settings they come from."""
    owner = node.stage if hasattr(node.stage, "model_id") else getattr(node.stage, "embedder", None)
    model_id = getattr(owner, "model_id", None)
    identity: dict[str, Json] = {"score_kind": node.stage.score_kind}
    if node.passages.cuts:
        identity["passages"] = dataclasses.asdict(node.passages)
    if isinstance(model_id, str):
        return identity | {"model_id": model_id}
    return identity | (dict(node.stage.index_settings()) if isinstance(node.stage, Indexed) else {})
