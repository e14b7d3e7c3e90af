"""Makes an int8 copy of a graph, once, and finds it again; how well it agrees with float32 is measured and kept.

Dynamic quantisation by ONNX Runtime: weights of matrix products in int8, one scale a column; activations are scaled by
the largest number of the whole batch when it runs. So a score depends on its batch-mates, unless each pair is a batch
of its own: whoever runs such a graph has to do that. int8 files that a model's authors published are not used, since
nothing tells how they were made, nor whether this CPU computes with them as they were meant.

One copy serves all cards of a model. How well it agrees depends on how a card writes pairs and on its languages, and is
kept for each of these apart.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from orchestrator.errors import ConfigError, MissingExtraError
from orchestrator.log import get_logger
from orchestrator.models.agreement import asked, measure
from orchestrator.models.card import Model
from orchestrator.models.kept import find_or_make
from orchestrator.models.manifest import ONNX_FILE, TOKENIZER_FILE, Manifest
from orchestrator.models.session import OnnxSession, physical_cores
from orchestrator.stage import Json
from orchestrator.storage import locked, stable_hash, write_atomic

_log = get_logger()
# protobuf's limit is 2 GiB a file; weights of larger graphs stand in files of their own.
_LARGE = 1_800_000_000


def find_or_quantise(model: Model, folder: Path, manifest: Manifest) -> Path:
    """The folder of the int8 copy; made first where it never was.

    Kept beside the float32 graph, under its name and what the CPU needs: without VNNI, sums of products of 8-bit
    numbers overflow 16 bits, and so weights get 7 bits there.

    Args:
        model: the card.
        folder: of the float32 graph.
        manifest: of the float32 graph, without what the card puts into it.

    Raises:
        MissingExtraError: onnx is not installed, and the copy is not there yet.
        ConfigError: the graph cannot be quantised.
    """
    target = folder.with_name(f"{folder.name}-{int8_kind()}")
    find_or_make(target, partial(_quantise, model, folder, manifest))
    return target


def with_agreement(model: Model, folder: Path, copy: Path, manifest: Manifest) -> Manifest:
    """The manifest with `agreement`, measured first where it never was for this template and these languages.

    Args:
        model: the card.
        folder: of the float32 graph.
        copy: of its int8 copy.
        manifest: of both, with the template and the instruction of the card.
    """
    template: Json = None if manifest.template is None else asdict(manifest.template)
    key = stable_hash({"template": template, "languages": list(asked(model.languages))})
    kept = copy / f"agreement-{key}.json"
    figures = _read_figures(kept)
    if figures is None:
        with locked(copy.with_name(f".{copy.name}.lock")):
            figures = _read_figures(kept) or _measure(model, folder, copy, manifest)
            write_atomic(kept, json.dumps(figures))
    return replace(manifest, agreement=figures)


def int8_kind() -> str:
    """`int8`, or `int8-7bit` on an x86 CPU without VNNI."""
    return "int8-7bit" if _overflows() else "int8"


def check_agreement(model: Model, manifest: Manifest, least: float) -> None:
    """Refuses an int8 copy that orders documents unlike float32.

    Args:
        model: the card.
        manifest: of the copy.
        least: the share of pairs of documents that both order alike.

    Raises:
        ConfigError: gives the figures and the choices.
    """
    figures = manifest.agreement or {}
    if not figures.get("order", 0.0) >= least:
        raise ConfigError(
            "precision",
            f"int8 orders documents unlike fp32 with {model.label}: {_words(figures)}; expected order of at least "
            f"{least} (min_agreement). Choices: precision=fp32, or a lower min_agreement",
        )


def _quantise(model: Model, folder: Path, manifest: Manifest, target: Path) -> Manifest:
    _log.info("model.quantise", model=model.label, precision=int8_kind())
    _write(model, folder / ONNX_FILE, target / ONNX_FILE)
    shutil.copyfile(folder / TOKENIZER_FILE, target / TOKENIZER_FILE)
    return manifest


def _measure(model: Model, folder: Path, copy: Path, manifest: Manifest) -> dict[str, float]:
    tokenizer = (folder / TOKENIZER_FILE).read_text(encoding="utf-8")
    exact, coarse = (OnnxSession(place / ONNX_FILE, physical_cores(), manifest.output) for place in (folder, copy))
    figures = measure(exact.run, coarse.run, tokenizer, manifest, model.languages)
    rounded = {key: round(value, 3) for key, value in figures.items()}
    _log.info("model.agreement", model=model.label, precision=int8_kind(), **rounded)
    return figures


def _read_figures(kept: Path) -> dict[str, float] | None:
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write(model: Model, source: Path, target: Path) -> None:
    try:
        importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise MissingExtraError("int8", "onnx") from error
    from onnxruntime.quantization import QuantType, quantize_dynamic

    size = sum(path.stat().st_size for path in source.parent.iterdir())
    with _quiet():
        try:
            quantize_dynamic(
                source,
                target,
                # Embeddings are looked up, not multiplied: in int8 they would cost agreement and bring no speed.
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                reduce_range=_overflows(),
                weight_type=QuantType.QInt8,
                use_external_data_format=size > _LARGE,
            )
        except Exception as error:  # of onnx, onnxruntime and protobuf, which have no common class
            raise ConfigError("precision", f"{model.label} cannot be quantised: {error}; expected fp32") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises on the root logger to preprocess the graph, which changes nothing for these graphs."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _overflows() -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True  # nothing tells on this system: 7 bits are right on any CPU


def _words(figures: Mapping[str, float]) -> str:
    order, compared = figures.get("order", 0.0), figures.get("compared", 0.0)
    rest = [f"{key} {figures[key]:.3g}" for key in ("spearman", "top_5", "max_difference") if key in figures]
    return ", ".join([f"order {order:.3f} of {compared:.0f} pairs", *rest])
