"""Indexes on disk: found, checked, built again where the corpus changed or files are damaged, and opened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from orchestrator import storage
from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.errors import IndexStateError
from orchestrator.learned.manifest import Manifest, read_manifest
from orchestrator.stage import Indexed, Json, Progress, no_progress

OnBuild = Callable[[str], None]


def _silent(reason: str) -> None:
    """An OnBuild that tells nobody."""


@dataclass(frozen=True, slots=True)
class OpenedIndex:
    """What `open_index` did.

    Attributes:
        directory: the generation that serves.
        built: why it was built just now, or None when it was there.
    """

    directory: Path
    built: str | None


def open_index(
    stage: Indexed,
    corpus: DiskCorpus,
    root: Path,
    stage_name: str,
    *,
    path: Path | None = None,
    progress: Progress = no_progress,
    on_build: OnBuild = _silent,
    force: bool = False,
    verify: bool = False,
) -> OpenedIndex:
    """Make `stage`, which is loaded, ready to serve `corpus`; its index is built first where it has to be.

    Args:
        stage: of any kind. An attribute `rewritten_files`, where it has one, gives patterns of relative paths
            that its engine changes by itself; of these only the presence is checked.
        corpus: what to search.
        root: where state lives.
        stage_name: the stage's name in the pipeline, for messages.
        path: a folder of the user's for this index, or None for one under `root`.
        progress: told about the building.
        on_build: told the reason before a build: `missing`, `the corpus changed`, `forced`, `damaged: ...`.
        force: build even when the index is up to date.
        verify: compare every file with its checksum, not only with its size; and what lies elsewhere with the corpus.

    Raises:
        IndexStateError: `path` holds an index of other settings or something else, or a new index cannot open.
    """
    index = _Index(stage, corpus, root, stage_name, path)
    reason = "forced" if force else index.why_build(verify)
    if reason is None:
        try:
            return index.open(built=None)
        except IndexStateError as error:
            reason = f"damaged: {error}"
    return index.build_and_open(reason, verify, progress, on_build)


def default_folder(stage: Indexed, corpus_key: str, root: Path) -> Path:
    """Where the index of `stage`, which is loaded, lies for a corpus unless the user names a place."""
    return root / "indexes" / corpus_key / storage.stable_hash(_settings(stage))


def _settings(stage: Indexed) -> dict[str, Json]:
    # Through JSON, so that a tuple compares equal with the list that the manifest gives back.
    return cast(dict[str, Json], json.loads(json.dumps(dict(stage.index_settings()))))


class _Index:
    """One index of one corpus: the folder of its generations, and what it should be built from."""

    def __init__(self, stage: Indexed, corpus: DiskCorpus, root: Path, stage_name: str, path: Path | None) -> None:
        settings = _settings(stage)
        default = default_folder(stage, corpus.key, root)
        self._stage, self._corpus = stage, corpus
        self._parent, self._is_users = path or default, path is not None
        self._where = f"pipeline.stages.{stage_name}.use" + (".path" if path else "")
        self._expected = Manifest(settings, corpus.name, corpus.content_hash, len(corpus))

    def why_build(self, verify: bool) -> str | None:
        """Why the index must be built; None when it is there, whole, and of this corpus as it is now."""
        current = storage.use_current(self._parent, lambda directory: (self._fault(directory, verify),))
        return "missing" if current is None else current[0]

    def open(self, built: str | None) -> OpenedIndex:
        """Let the stage open the current generation.

        Raises:
            IndexStateError: it cannot.
        """

        def use(directory: Path) -> OpenedIndex:
            self._stage.open(self._corpus, directory)
            if not self._is_users:
                storage.note_use(self._parent)
            return OpenedIndex(directory, built)

        opened = storage.use_current(self._parent, use)
        if opened is None:
            raise IndexStateError(f"{self._where}: {self._parent} was removed while being opened; try again")
        return opened

    def build_and_open(self, reason: str, verify: bool, progress: Progress, on_build: OnBuild) -> OpenedIndex:
        """Build a new generation, unless another process did meanwhile, and open it.

        Raises:
            IndexStateError: the folder is not for this index, or what was built does not open.
        """
        self._refuse_foreign_folder()
        before = storage.current_generation(self._parent)
        with storage.locked(self._parent / storage.LOCK):
            if storage.current_generation(self._parent) != before and self.why_build(verify) is None:
                return self.open(built=None)
            on_build(reason)
            with storage.new_generation(self._parent) as directory:
                self._builder(anew=reason == "forced")(self._corpus, directory, progress)
                self._expected.write(directory, self._rewritten_files())
            return self.open(built=reason)

    def _builder(self, anew: bool) -> Callable[[DiskCorpus, Path, Progress], None]:
        name = "index_anew" if anew and hasattr(self._stage, "index_anew") else "index"
        return cast(Callable[[DiskCorpus, Path, Progress], None], getattr(self._stage, name))

    def _rewritten_files(self) -> Iterable[str]:
        return cast(Iterable[str], getattr(self._stage, "rewritten_files", ()))

    def _fault(self, directory: Path, verify: bool) -> str | None:
        found = read_manifest(directory)
        if found is None:
            return "damaged: no manifest that this version can read"
        differences = found.differences(self._expected)
        if differences and self._is_users:
            raise self._other_settings(differences)
        if differences:
            return "its settings changed"
        if (found.content_hash, found.n_documents) != (self._expected.content_hash, self._expected.n_documents):
            return "the corpus changed"
        damage = found.damage(directory, verify) or (self._fault_elsewhere(directory) if verify else None)
        return damage and f"damaged: {damage}"

    def _fault_elsewhere(self, directory: Path) -> str | None:
        check = getattr(self._stage, "verify_index", None)
        try:
            return None if check is None else cast(str | None, check(self._corpus, directory))
        except IndexStateError as error:
            return str(error)

    def _other_settings(self, differences: list[str]) -> IndexStateError:
        # Never replaced without a word: it may be another pipeline's, and have taken hours.
        first = f"{self._where}: {self._parent} holds an index of other settings"
        last = "choices: another path, or replace it with 'orchestrate index force=true'"
        return IndexStateError("\n".join([first, *differences, last]))

    def _refuse_foreign_folder(self) -> None:
        if self._parent.exists() and not self._parent.is_dir():
            raise IndexStateError(f"{self._where}: {self._parent} is a file; expected a folder, or nothing yet")
        foreign = storage.foreign_entries(self._parent)
        if foreign and not (self._parent / storage.CURRENT).exists():
            found = ", ".join(foreign[:5]) + (", ..." if len(foreign) > 5 else "")
            expected = "expected an empty folder, an index of this program, or nothing yet"
            raise IndexStateError(f"{self._where}: {self._parent} holds {found}; {expected}")
