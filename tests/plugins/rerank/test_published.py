"""Models that come with an ONNX graph: used as it is, without torch, or our own export where it cannot be."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from structlog.testing import capture_logs

from orchestrator.errors import ConfigError, ModelNotFoundError
from orchestrator.models import Model, find_or_export
from orchestrator.models.manifest import ONNX_FILE
from orchestrator.models.network import load_network
from orchestrator.plugins.embed.onnx import OnnxEmbed
from orchestrator.plugins.rerank.cross_encoder import CrossEncoderRerank
from orchestrator.types import Call, Document, Query

LONG = "Regular eye examinations find Glaucoma early. " * 8
TEXTS = [("what damages the optic nerve", "Glaucoma damages the optic nerve"), (LONG, LONG), ("eye", ""), ("eye", LONG)]
KINDS = ["bert", "xlmr", "deberta", "modernbert", "distilbert", "mpnet"]
SCORE = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from orchestrator.models import Model
from orchestrator.plugins.rerank.cross_encoder import CrossEncoderRerank
from orchestrator.types import Call, Document, Query
stage = CrossEncoderRerank(Model(role="reranker", path=sys.argv[1], storage_root=sys.argv[2]), threads=1)
stage.load()
heavy = [name for name in ("onnx", "sentence_transformers", "safetensors", "scipy") if name in sys.modules]
print(stage.score([(Query("q", "eye"), Document("d", "the great wall"))], Call()).tolist(), heavy)
"""


def card(path: Path, root: Path, role: Any = "reranker") -> Model:
    return Model(role=role, path=str(path), storage_root=root)


def scores(path: Path, root: Path) -> Any:
    stage = CrossEncoderRerank(card(path, root), threads=1)
    stage.load()
    return stage.score([(Query("q", query), Document("d", text)) for query, text in TEXTS], Call())


def reference_scores(path: Path) -> Any:
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(path), device="cpu", local_files_only=True)
    return model.predict(TEXTS, activation_fn=torch.nn.Identity(), show_progress_bar=False)


def copy(path: Path, target: Path) -> Path:
    shutil.copytree(path, target)
    return target


def put_weights_outside(path: Path) -> None:
    graph = path / "onnx" / "model.onnx"
    onnx.save(onnx.load(graph), graph, save_as_external_data=True, location="model.onnx_data", size_threshold=0)


def change_graph(path: Path, change: Callable[[Any], object]) -> None:
    model = onnx.load(path / "onnx" / "model.onnx")
    change(model.graph)
    onnx.save(model, path / "onnx" / "model.onnx")


@pytest.mark.parametrize(
    ("kind", "role"), [*((kind, "reranker") for kind in KINDS), ("bert", "embedder"), ("distilbert", "embedder")]
)
def test_files_alone_tell_what_transformers_tells(kind: str, role: str, checkpoints: Any, tmp_path: Path) -> None:
    labels = 1 if role == "reranker" else None
    bare, whole = (checkpoints.published(kind, labels, weights=weights) for weights in (False, True))
    _, manifest = find_or_export(card(bare, tmp_path, role))
    expected = load_network(card(whole, tmp_path, role), whole, {}).manifest
    facts, theirs = asdict(manifest), asdict(expected)
    assert set(facts.pop("input_names")) <= set(theirs.pop("input_names"))  # the exporter drops what nothing reads
    for key in ("source", "sources", "files", "output", "type_ids"):
        del facts[key], theirs[key]
    assert facts == theirs
    assert manifest.output == ("logits" if labels else "last_hidden_state")


@pytest.mark.parametrize("kind", ["bert", "xlmr", "deberta"])
def test_scores_of_a_published_graph_equal_sentence_transformers(
    kind: str, checkpoints: Any, shared_root: Path
) -> None:
    ours = scores(checkpoints.published(kind, 1), shared_root)
    theirs = reference_scores(checkpoints.published(kind, 1, weights=True))
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    assert np.ptp(ours) > 1e-2


def test_type_ids_are_given_only_where_the_tokenizer_makes_them(
    checkpoints: Any, shared_root: Path, tmp_path: Path
) -> None:
    paths = [copy(checkpoints.published("bert", 1, weights=weights), tmp_path / str(weights)) for weights in (0, 1)]
    for path in paths:
        settings = (path / "tokenizer_config.json").read_text().replace(', "token_type_ids"', "")
        (path / "tokenizer_config.json").write_text(settings)
    ours = scores(paths[0], shared_root)
    np.testing.assert_allclose(ours, reference_scores(paths[1]), atol=1e-5, rtol=1e-5)
    with_ids = scores(checkpoints.published("bert", 1), shared_root)
    assert np.abs(ours - with_ids).max() > 1e-3


def test_vectors_of_a_published_graph_equal_sentence_transformers(checkpoints: Any, shared_root: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    source = checkpoints.sentence_transformer("to-publish", "xlmr", lambda: [Pooling(32, "mean"), Normalize()])
    embed = OnnxEmbed(card(checkpoints.published("xlmr", None, source), shared_root, "embedder"), threads=1)
    embed.load()
    texts = [text for pair in TEXTS for text in pair]
    expected = SentenceTransformer(str(source), device="cpu").encode(texts, show_progress_bar=False)
    np.testing.assert_allclose(embed.embed(texts, kind="query", call=Call()), expected, atol=1e-5)


def test_a_published_graph_needs_neither_torch_nor_transformers(checkpoints: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", SCORE, str(checkpoints.published("xlmr", 1)), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")
    assert done.stdout.strip().endswith("] []")


def test_graph_with_weights_beside_it_is_used_and_a_missing_part_is_named(checkpoints: Any, tmp_path: Path) -> None:
    path = copy(checkpoints.published("bert", 1), tmp_path / "model")
    expected = scores(path, tmp_path)
    put_weights_outside(path)
    np.testing.assert_array_equal(scores(path, tmp_path), expected)
    (path / "onnx" / "model.onnx_data").unlink()
    with pytest.raises(ModelNotFoundError, match=r"missing weights .*; weights onnx/model\.onnx_data"):
        scores(path, tmp_path)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_graph_in_the_hub_cache_is_linked_not_copied(
    backend: Any, checkpoints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache holds links into a folder of blobs, which OpenVINO refuses to follow for weights outside the graph."""
    path = copy(checkpoints.published("bert", 1), tmp_path / "model")
    put_weights_outside(path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot, blobs = (tmp_path / "hub" / "models--org--tiny" / part for part in ("snapshots/main", "blobs"))
    for file in (file for file in path.rglob("*") if file.is_file()):
        target, blob = snapshot / file.relative_to(path), blobs / file.name
        for folder in (target.parent, blobs):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        target.symlink_to(os.path.relpath(blob, target.parent))
    model = Model(role="reranker", name="org/tiny", storage_root=tmp_path)
    stage = CrossEncoderRerank(model, threads=1, backend=backend)
    stage.load()
    folder, _ = find_or_export(model)
    assert (folder / ONNX_FILE).samefile(snapshot / "onnx" / "model.onnx")
    found = stage.score([(Query("q", query), Document("d", text)) for query, text in TEXTS], Call())
    np.testing.assert_allclose(found, scores(path, tmp_path), atol=1e-5)


def rename_output(graph: Any) -> None:
    graph.output[0].name = "sentence_embedding"
    for node in graph.node:
        node.output[:] = ["sentence_embedding" if name == "logits" else name for name in node.output]
    graph.output.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, None))
    graph.node.append(onnx.helper.make_node("Identity", ["sentence_embedding"], ["other"]))


def rename_input(graph: Any) -> None:
    graph.input[0].name = "input_features"
    for node in graph.node:
        node.input[:] = ["input_features" if name == "input_ids" else name for name in node.input]


def narrow_positions(graph: Any) -> None:
    (table,) = (tensor for tensor in graph.initializer if "position_embeddings.weight" in tensor.name)
    rows = onnx.numpy_helper.to_array(table)[:50]  # of 64: enough for what the traced and the short texts need
    table.CopyFrom(onnx.numpy_helper.from_array(rows, table.name))


def widen_output(graph: Any) -> None:
    for node in graph.node:
        node.output[:] = ["one" if name == "logits" else name for name in node.output]
    graph.node.append(onnx.helper.make_node("Concat", ["one", "one"], ["logits"], axis=1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (rename_output, "its outputs are sentence_embedding, other; expected logits of a reranker"),
        (rename_input, "its inputs are input_features"),
        (narrow_positions, "."),
        (widen_output, r"output logits has the shape \(2, 2\); expected \(2, 1\)"),
        (None, "."),
    ],
)
def test_a_graph_that_cannot_be_used_gives_way_to_our_own_export(
    change: Callable[[Any], object] | None, reason: str, checkpoints: Any, tmp_path: Path
) -> None:
    path = copy(checkpoints.published("bert", 1, weights=True), tmp_path / "model")
    if change is None:
        (path / "onnx" / "model.onnx").write_bytes(b"not a graph")
    else:
        change_graph(path, change)
    with capture_logs() as first:
        found = scores(path, tmp_path)
    np.testing.assert_allclose(found, reference_scores(path), atol=1e-5, rtol=1e-5)
    with capture_logs() as second:
        scores(path, tmp_path)
    told, again = ([e for e in log if e["event"] == "model.graph_unusable"] for log in (first, second))
    assert len(told) == 1
    assert told == again  # remembered, without another look at the graph
    assert told[0]["instead"] == "own export"
    assert re.search(reason, told[0]["reason"])
    assert [entry["event"] for entry in second] == ["model.graph_unusable"]


def test_a_graph_that_cannot_be_used_and_no_weights_is_an_error(checkpoints: Any, tmp_path: Path) -> None:
    path = copy(checkpoints.published("bert", 1), tmp_path / "model")
    (path / "onnx" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelNotFoundError, match="missing weights"):
        scores(path, tmp_path)


def test_a_graph_is_used_where_torch_cannot_load_the_weights_beside_it(checkpoints: Any, tmp_path: Path) -> None:
    """As of models that only run with code of their own."""
    path = copy(checkpoints.published("bert", 1, weights=True), tmp_path / "model")
    (path / "model.safetensors").write_bytes(b"not weights")
    with capture_logs() as log:
        np.testing.assert_array_equal(scores(path, tmp_path), scores(checkpoints.published("bert", 1), tmp_path))
    events = [entry["event"] for entry in log]
    assert events == ["model.graph_used", "model.graph_not_compared", "model.graph_used"]


def test_a_graph_older_than_the_weights_beside_it_is_not_used(checkpoints: Any, tmp_path: Path) -> None:
    """Tuned in place: the folder keeps the graph of the model that it was."""
    from safetensors.numpy import load_file, save_file

    path = copy(checkpoints.published("bert", 1, weights=True), tmp_path / "model")
    before = scores(path, tmp_path)
    weights = load_file(path / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"] * np.float32(-2)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with capture_logs() as log:
        after = scores(path, tmp_path)
    assert "differs from torch" in next(e for e in log if e["event"] == "model.graph_unusable")["reason"]
    np.testing.assert_allclose(after, reference_scores(path), atol=1e-5, rtol=1e-5)
    assert np.abs(after - before).max() > 1e-2


@pytest.mark.parametrize("own_code", [False, True])
def test_a_graph_beside_weights_that_lack_the_head_is_used_only_where_these_need_code_of_their_own(
    own_code: bool, checkpoints: Any, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    path = copy(checkpoints.published("bert", 1, weights=True), tmp_path / "model")
    weights = {name: part for name, part in load_file(path / "model.safetensors").items() if "classifier" not in name}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    if own_code:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "own.Config"}}))
        np.testing.assert_array_equal(scores(path, tmp_path), scores(checkpoints.published("bert", 1), tmp_path))
        return
    with capture_logs() as log, pytest.raises(ConfigError, match=r"lacks the weights classifier\.bias"):
        scores(path, tmp_path)
    (told,) = (entry for entry in log if entry["event"] == "model.graph_unusable")
    assert "torch's weights beside it are of another model" in told["reason"]


def without_type_ids(graph: Any) -> None:
    (types,) = (place for place in graph.input if place.name == "token_type_ids")
    graph.input.remove(types)
    graph.node.insert(0, onnx.helper.make_node("Sub", ["input_ids", "input_ids"], ["token_type_ids"]))


def test_a_graph_that_does_not_tell_the_texts_of_a_pair_apart_is_not_used(checkpoints: Any, tmp_path: Path) -> None:
    path = copy(checkpoints.published("bert", 1, weights=True), tmp_path / "model")
    change_graph(path, without_type_ids)
    with capture_logs() as log:
        found = scores(path, tmp_path)
    assert "differs from torch" in next(e for e in log if e["event"] == "model.graph_unusable")["reason"]
    np.testing.assert_allclose(found, reference_scores(path), atol=1e-5, rtol=1e-5)


def test_files_that_transformers_reads_otherwise_give_way_to_our_own_export(checkpoints: Any, tmp_path: Path) -> None:
    path = copy(checkpoints.published("bert", 1, weights=True), tmp_path / "model")
    settings = json.loads((path / "tokenizer_config.json").read_text())
    del settings["model_input_names"]  # then a class has its own, which only transformers knows
    (path / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "LayoutLMTokenizer"}))
    with capture_logs() as log:
        found = scores(path, tmp_path)
    unusable = [entry["reason"] for entry in log if entry["event"] == "model.graph_unusable"]
    assert unusable == ["type_ids: the files and transformers differ"]
    np.testing.assert_allclose(found, reference_scores(path), atol=1e-5, rtol=1e-5)


def test_weights_outside_the_graph_count_whatever_their_file_is_called(checkpoints: Any, tmp_path: Path) -> None:
    path = copy(checkpoints.published("bert", 1), tmp_path / "model")
    graph = path / "onnx" / "model.onnx"
    onnx.save(onnx.load(graph), graph, save_as_external_data=True, location="weights.data", size_threshold=0)
    first, _ = find_or_export(card(path, tmp_path))
    content = bytearray((path / "onnx" / "weights.data").read_bytes())
    content[-1] ^= 1
    (path / "onnx" / "weights.data").write_bytes(content)
    assert find_or_export(card(path, tmp_path))[0] != first


def test_a_classifier_made_of_a_language_model_runs_from_its_graph_with_the_card_of_that_model(
    checkpoints: Any, causal: Any, tmp_path: Path
) -> None:
    parts = {"template": ("Q {query}\n", "D {document}", "\nyes or no?"), "yes_token": "yes", "no_token": "no"}
    places = {"onnx": checkpoints.published("qwen3", 1, causal("qwen3", labels=1)), "torch": causal("qwen3", labels=1)}
    found = []
    for backend, path in places.items():
        model = Model(role="reranker", path=str(path), storage_root=tmp_path, **parts)
        stage = CrossEncoderRerank(model, backend=backend)
        stage.load()
        found.append(stage.score([(Query("q", query), Document("d", text)) for query, text in TEXTS], Call()))
    np.testing.assert_allclose(*found, atol=1e-4)
    assert np.ptp(found[0]) > 1e-2


def test_an_embedders_graph_is_refused_as_a_reranker_by_what_stands_beside_it(checkpoints: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no reranker \(config.json says XLMRobertaModel\).*models\.embedder"):
        scores(checkpoints.published("xlmr"), tmp_path)
