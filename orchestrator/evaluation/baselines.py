"""Runs to compare with: one kept by name, that of an earlier evaluation's folder, or any TREC run file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator import storage
from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.evaluation.measures import Measures, Rankings
from orchestrator.evaluation.quality import Quality, Ranked
from orchestrator.jobs import METRICS_FILE
from orchestrator.log import get_logger
from orchestrator.trec import Scored, one_word, read_run

log = get_logger()

RUN_FILE = "run.trec"
"""The uncut ranking of the whole, in the folder of an evaluation and in that of a kept run."""
_NAME = re.compile(r"\w[\w.-]{0,59}")
_SHOWN = 3

Run = Mapping[str, Sequence[Scored]]
AsJudged = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A run that a pipeline is compared with.

    Attributes:
        name: as it is shown: the name it was kept by, or that of its folder or file.
        path: of its file.
        run: query id -> (document id, score), best first.
    """

    name: str
    path: Path
    run: Run


@dataclass(frozen=True, slots=True)
class Judged:
    """A baseline by the judgements of the pipeline's queries.

    Attributes:
        baseline: which one.
        ranked: its rankings and what they are worth; a query that the run lacks scores 0.
        n_missing: how many queries that are.
    """

    baseline: Baseline
    ranked: Ranked
    n_missing: int


class KeptRuns:
    """The runs of one corpus that were kept by name, each in a folder of generations.

    Args:
        root: where state lives.
        corpus: its key, as folders are named by it.
    """

    def __init__(self, root: Path, corpus: str) -> None:
        self._folder = root / "runs" / corpus

    @property
    def names(self) -> list[str]:
        """Sorted."""
        found = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return [path.name for path in found if storage.current_generation(path) is not None]

    def find(self, name: str) -> Path | None:
        """The run file of that name; None where none was kept."""
        directory = storage.current_generation(self._folder / name) if _NAME.fullmatch(name) else None
        return None if directory is None else directory / RUN_FILE

    def keep(self, name: str, files: Mapping[str, str]) -> Path:
        """Write `files` (name -> text) as the run `name`, all or nothing, in place of one kept before."""
        folder = self._folder / name
        is_new = storage.current_generation(folder) is None
        with storage.locked(folder / storage.LOCK), storage.new_generation(folder) as directory:
            for file, text in files.items():
                (directory / file).write_text(text, encoding="utf-8")
        log.info("run.kept" if is_new else "run.replaced", name=name, folder=str(folder))
        return folder


def check_name(name: object) -> str | None:
    """`task.save_as`, where it is a name; a number is one too.

    Raises:
        ConfigError: it is none that a folder can have.
    """
    if name is None:
        return None
    name = str(name) if isinstance(name, int | float) and not isinstance(name, bool) else name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        expected = "expected a name of at most 60 letters, digits, dots, dashes and underscores"
        raise ConfigError("task.save_as", f"found {name!r}; {expected}")
    return name


def read_baselines(words: Sequence[str], kept: KeptRuns, content_hash: str) -> list[Baseline]:
    """The runs that `words` name; where a folder says that it ranked other documents, the log says so.

    Args:
        words: each a name that a run was kept by, a folder or a file.
        kept: the runs that were kept.
        content_hash: of the documents that are ranked now.

    Raises:
        ConfigError: a word names none; the message has the choices.
        DataError: a file is no run.
    """
    found: list[Baseline] = []
    for place, word in enumerate(words):
        path, name = _locate(word, kept, "task.baseline" + (f"[{place}]" if len(words) > 1 else ""))
        if name in {other.name for other in found}:
            name = word
        found.append(Baseline(name, path, read_run(path)))
        _warn_of_other_documents(found[-1], content_hash)
    return found


def _locate(word: str, kept: KeptRuns, path: str) -> tuple[Path, str]:
    known = kept.find(word)
    if known is not None:
        return known, word
    place = Path(word).expanduser()
    if place.is_file():
        return place, place.name
    if place.is_dir():
        if not (place / RUN_FILE).is_file():
            expected = f"expected the folder of an evaluation, which has a {RUN_FILE}, or one of the files in its runs/"
            raise ConfigError(path, f"{place}: holds no {RUN_FILE}; {expected}")
        return place / RUN_FILE, place.resolve().name
    names = kept.names
    choices = f"runs kept of this corpus: {', '.join(names) or 'none'} (save_as=NAME keeps one)"
    what = "neither a kept run nor a folder or file that is there"
    raise ConfigError(path, f"'{word}' is {what}; {choices}.{did_you_mean(word, names)}")


def judge_baseline(
    baseline: Baseline, quality: Quality, measures: Measures, depth: int, as_judged: AsJudged | None = None
) -> Judged:
    """`baseline` by the same judgements and measures, over the same queries and to the same depth.

    Args:
        baseline: what was read.
        quality: of the pipeline, whose judged queries count.
        measures: what to compute.
        depth: of the rankings that are judged.
        as_judged: ids of a ranking as the judgements name them, ids that the corpus does not know included.

    Raises:
        ConfigError: the run has none of the queries.
    """
    rankings: Rankings = {}
    for query in quality.queries:
        rows = baseline.run.get(one_word(query.query_id))
        if rows:
            as_written = {one_word(doc_id): doc_id for doc_id in quality.qrels[query.query_id]}
            ids = [as_written.get(doc_id, doc_id) for doc_id, _ in rows]
            rankings[query.query_id] = tuple(as_judged(ids) if as_judged else ids)[:depth]
    if not rankings:
        theirs = ", ".join(list(baseline.run)[:_SHOWN])
        ours = ", ".join(query.query_id for query in quality.queries[:_SHOWN])
        found = f"{baseline.path} has none of the {quality.n_queries} judged queries"
        raise ConfigError("task.baseline", f"{found}; found {theirs or 'nothing'}, ...; expected {ours}, ...")
    n_missing = quality.n_queries - len(rankings)
    if n_missing:
        log.warning("baseline.queries", baseline=baseline.name, missing=n_missing, of=quality.n_queries, count_as=0)
    return Judged(baseline, Ranked.of(rankings, quality.qrels, measures), n_missing)


def _warn_of_other_documents(baseline: Baseline, content_hash: str) -> None:
    """Tell where the folder of a baseline says that it ranked other documents."""
    folder = baseline.path.parent
    for path in (folder / METRICS_FILE, folder.parent / METRICS_FILE):
        try:
            corpus = json.loads(path.read_text(encoding="utf-8"))["corpus"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if not isinstance(corpus, dict):
            continue
        if corpus.get("content_hash") != content_hash:
            log.warning("baseline.other_documents", baseline=baseline.name, corpus=corpus.get("name"), file=str(path))
        return


def parents_or_selves(corpus: DiskCorpus) -> AsJudged:
    """What names the ids of any run as judgements of whole documents do: chunks by their documents."""

    def as_judged(doc_ids: Sequence[str]) -> list[str]:
        known = np.flatnonzero(corpus.find(doc_ids) >= 0).tolist()
        parents = dict(zip(known, corpus.parents([doc_ids[row] for row in known]), strict=True))
        return list(dict.fromkeys(parents.get(row, doc_id) for row, doc_id in enumerate(doc_ids)))

    return as_judged
