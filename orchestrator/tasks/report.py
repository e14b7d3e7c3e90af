"""`orchestrate report DIR`: the evaluations in a folder side by side, as a page, as Markdown and as CSV."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.config.corpus import corpus_of_run
from orchestrator.config.job import plain
from orchestrator.corpora.corpus import DiskCorpus, stored_corpus
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.report.study.csv_file import csv_text
from orchestrator.report.study.markdown import markdown
from orchestrator.report.study.page import page
from orchestrator.storage import write_atomic
from orchestrator.study.folders import read_folders
from orchestrator.study.headline import headline
from orchestrator.study.study import NULL, Study, study_of, with_queries

if TYPE_CHECKING:
    from omegaconf import DictConfig

_NEWEST = ("outputs/*/*-evaluate-*", "multirun/*/*-evaluate-*")


def run(cfg: DictConfig, output: Path | None) -> None:
    """Write report.html, report.md and report.csv, and say where on stdout, after the headline."""
    if cfg.format.name == "trec":
        raise ConfigError("format", "found trec; report ranks no documents. Choices: table, json")
    folders = _folders(cfg)
    first = next(iter(folders.values()))
    into = _output(cfg, first)
    study = study_of(read_folders(folders), _measure(cfg), _reference(cfg))
    study = _with_texts(study)
    title = f"Report of {', '.join(folder.resolve().name for folder in folders.values())}"
    written = {
        "html": (into / "report.html", page(study, title)),
        "markdown": (into / "report.md", markdown(study, title)),
        "csv": (into / "report.csv", csv_text(study)),
    }
    _write(written.values(), into)
    _tell(cfg, study, {kind: path for kind, (path, _) in written.items()})


def _write(files: Iterable[tuple[Path, str]], into: Path) -> None:
    try:
        for path, text in files:
            write_atomic(path, text)
    except OSError as error:
        found = f"{into}: cannot be written ({error.strerror or error})"
        raise ConfigError("task.output", f"{found}; choose another folder: output=DIR") from error


def _folders(cfg: DictConfig) -> dict[str, Path]:
    """The key each folder was given by -> the folder; each once."""
    if cfg.task.folder is None:
        there = [path for pattern in _NEWEST for path in Path().glob(pattern)]
        hint = f"; the newest here: {max(there, key=lambda path: path.stat().st_mtime)}" if there else ""
        raise ConfigError("task.folder", f"missing; expected the folder of an evaluation or a sweep{hint}")
    more = plain(cfg.task.compare) or []
    if not isinstance(more, str | list) or not all(isinstance(one, str) for one in more):
        raise ConfigError("task.compare", f"found {more!r}; expected a folder, or a list of them: compare=[DIR2,DIR3]")
    named = {"task.folder": str(cfg.task.folder)}
    if isinstance(more, str):
        named["task.compare"] = more
    else:
        named |= {f"task.compare[{place}]": one for place, one in enumerate(more)}
    found: dict[Path, str] = {}
    for key, path in named.items():
        found.setdefault(Path(path).expanduser().resolve(), key)
    return {key: Path(named[key]).expanduser() for key in found.values()}


def _output(cfg: DictConfig, folder: Path) -> Path:
    if cfg.task.output is None:
        return folder
    path = Path(str(cfg.task.output)).expanduser()
    if path.is_file():
        raise ConfigError("task.output", f"{path}: found a file; expected a folder, which is made where there is none")
    return path


def _measure(cfg: DictConfig) -> str | None:
    return None if cfg.task.measure is None else str(cfg.task.measure)


def _reference(cfg: DictConfig) -> str:
    """The name of a row; the ranking before reranking is called null, which YAML takes for nothing."""
    return NULL if cfg.task.reference is None else str(cfg.task.reference)


def _with_texts(study: Study) -> Study:
    """`study` query by query, with the texts of documents where the corpus lies in the store already."""
    corpus, reason = _open(study)
    try:
        found = with_queries(study, corpus)
    finally:
        if corpus is not None:
            corpus.close()
    ids_alone = f"Documents are shown by their ids alone: {reason}." if reason and found.pairs else ""
    return replace(found, gaps=(*found.gaps, ids_alone)) if ids_alone else found


def _open(study: Study) -> tuple[DiskCorpus | None, str]:
    """The corpus that the best row ranked, without building anything; or else why not."""
    kept = corpus_of_run(study.best.folder)
    if kept is None:
        return None, "the folder holds no configuration that names their collection"
    spec, root = kept
    try:
        corpus = stored_corpus(spec, root)
    except OrchestratorError as error:
        return None, f"their collection cannot be opened ({error})"
    if corpus is None:
        return None, f"the collection '{spec.name}' is not in the store under {root} ($ORCHESTRATOR_HOME names another)"
    was = study.subject.figures.corpus.get("content_hash") if study.subject.figures else None
    if was is not None and was != corpus.content_hash:
        corpus.close()
        return None, f"the collection '{spec.name}' has changed since"
    return corpus, ""


def _tell(cfg: DictConfig, study: Study, paths: dict[str, Path]) -> None:
    told = headline(study)
    if cfg.format.name == "json":
        best = {"row": study.best.name, "settings": dict(study.best.settings), "folder": str(study.best.folder)}
        files = {kind: str(path) for kind, path in paths.items()}
        content = {**files, "headline": [one.text for one in told], "best": best, "gaps": list(study.gaps)}
        sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
        return
    console = report.console()
    for one in told:
        console.print(f"- {one.text}", markup=False)
    console.print()
    for kind, path in paths.items():
        console.print(f"{kind:<9} {path}", markup=False, soft_wrap=True)
