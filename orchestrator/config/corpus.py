"""`corpus` of a configuration, that of a run which has ended as well, becomes a CorpusSpec."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.config.places import storage_root
from orchestrator.corpora.chunks import Chunking
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.corpora.readers.columns import Columns
from orchestrator.corpora.readers.table import TableOptions
from orchestrator.errors import ConfigError
from orchestrator.log import get_logger

log = get_logger()
_SAMPLE_DOCUMENTS = 100


def resolve_language(cfg: DictConfig) -> None:
    """Put the language of a hundred of the corpus's documents in the place of `corpus.language: auto`.

    Raises:
        OrchestratorError: the corpus cannot be read.
    """
    if cfg.corpus.language != "auto":
        return
    from orchestrator.corpora.corpus import open_corpus
    from orchestrator.detection import detect_many

    corpus = open_corpus(build_corpus(cfg), storage_root(cfg))
    try:
        cfg.corpus.language = detect_many(document.full_text for document in corpus.sample(_SAMPLE_DOCUMENTS))
    finally:
        corpus.close()
    log.info("corpus.language", corpus=corpus.name, detected=cfg.corpus.language)


def build_corpus(cfg: DictConfig) -> CorpusSpec:
    """What `cfg.corpus` names; without a `name` the folder's own."""
    corpus = cfg.corpus
    if OmegaConf.is_missing(corpus, "path"):
        raise ConfigError("corpus.path", "missing; set it to a file or folder of documents: corpus.path=docs.jsonl")
    return CorpusSpec(
        name=corpus.name or Path(corpus.path.removesuffix("/")).name,
        path=corpus.path,
        language=corpus.language,
        split=corpus.split,
        max_queries=corpus.max_queries,
        on_bad_line=corpus.on_bad_line.name,
        format=corpus.format.name,
        columns=_columns(corpus.columns),
        csv=TableOptions(_typed(corpus.csv.delimiter), corpus.csv.quote, _names(corpus.csv.header)),
        chunk=Chunking(corpus.chunk.max_chars, corpus.chunk.overlap_chars),
        queries=corpus.queries,
        qrels=corpus.qrels,
    )


def _columns(columns: DictConfig) -> Columns:
    text = columns.text
    if not isinstance(text, str | ListConfig):
        raise ConfigError("corpus.columns.text", f"found {text!r}; expected a name, [name, name] or auto")
    texts = text if isinstance(text, str) else tuple(map(str, text))
    return Columns(columns.id, texts, columns.title, columns.parent, _names(columns.metadata))


def _typed(delimiter: str | None) -> str | None:
    r"""A tab, where someone typed \t in a shell or in YAML's single quotes."""
    return "\t" if delimiter == "\\t" else delimiter


def _names(names: ListConfig | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(map(str, names))


def corpus_of_run(folder: Path) -> tuple[CorpusSpec, Path] | None:
    """What the run that left `folder` ranked, and the storage root that it used; None where the folder does not tell.

    Relative paths are those of the folder that the run was started in.
    """
    import yaml

    from orchestrator.config.schema import CorpusSchema

    try:
        kept = OmegaConf.load(folder / ".hydra" / "config.yaml")
        cfg = OmegaConf.merge({"corpus": OmegaConf.structured(CorpusSchema), "storage": {"root": None}}, kept)
        assert isinstance(cfg, DictConfig)
        spec, started_in = build_corpus(cfg), _started_in(folder)
        paths = {key: _below(started_in, getattr(spec, key)) for key in ("path", "queries", "qrels")}
        return dataclasses.replace(spec, **paths), storage_root(cfg)  # type: ignore[arg-type]
    except (OSError, OmegaConfBaseException, ConfigError, yaml.YAMLError, AttributeError):
        return None


def _started_in(folder: Path) -> Path:
    """The folder that a run was started in, as Hydra kept it."""
    path = folder / ".hydra" / "hydra.yaml"
    found = OmegaConf.select(OmegaConf.load(path), "hydra.runtime.cwd") if path.is_file() else None
    return Path(str(found)) if found else Path()


def _below(folder: Path, path: str | None) -> str | None:
    if path is None or path.startswith("pkg://") or Path(path).expanduser().is_absolute():
        return path
    return str(folder / path)
