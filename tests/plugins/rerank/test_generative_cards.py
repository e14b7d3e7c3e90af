"""Cards of generative rerankers write pairs as their authors' own code does; that code is repeated here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import Pipeline
from orchestrator.models.network import load_network
from orchestrator.models.template import with_template
from orchestrator.models.tokens import TextEncoder
from orchestrator.types import Call, Document, Query

LONG = "Regular eye examinations find Glaucoma early. " * 40
TEXTS = [
    ("What damages the optic nerve?", "Glaucoma damages the optic nerve"),
    ("What damages the optic nerve?", LONG),
    ("长城有多长？", "青光眼会损害视神经。" * 20),
    ("长城有多长？", "The wall is 21,196 km long."),
    ("eye", ""),
    (" eye\n", "  a wall; a nerve!\n\n"),
]
CARDS = {"qwen3_reranker_0_6b": "qwen3", "bge_reranker_v2_gemma": "gemma", "mxbai_rerank_base_v2": "qwen2"}
LARGER = {
    "qwen3_reranker_4b": "qwen3_reranker_0_6b",
    "qwen3_reranker_8b": "qwen3_reranker_0_6b",
    "mxbai_rerank_large_v2": "mxbai_rerank_base_v2",
}


def card(name: str, path: Path, root: Path, *overrides: str) -> Any:
    """The stage of a shipped card, on a checkpoint of our own."""
    words = [f"model@models.reranker={name}", f"models.reranker.path={path}", f"storage.root={root}", *overrides]
    return Pipeline.compose(["pipeline=cross_encoder", *words]).graph["precise"].stage


def qwen_ids(tokenizer: Any, query: str, document: str, max_length: int) -> list[int]:
    """`format_instruction` and `process_inputs` of the README of QwenLM/Qwen3-Embedding."""
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    instruction = "Given a web search query, retrieve relevant passages that answer the query"
    body = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (prefix, suffix))
    length = max_length - len(before) - len(after)
    ids = tokenizer(body, padding=False, truncation="longest_first", max_length=length)["input_ids"]
    return [*before, *ids, *after]


def bge_ids(tokenizer: Any, query: str, document: str, max_length: int) -> list[int]:
    """`compute_score_single_gpu` of FlagEmbedding's inference/reranker/decoder_only/base.py.

    It cuts before its prompt is added, and counts the prompt too: as many tokens are taken off `max_length`.
    """
    prompt = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'."
    )

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    first = [tokenizer.bos_token_id, *ids(f"A: {query}")]
    second = [*ids("\n"), *ids(f"B: {document}")]
    length = max_length - len(ids("\n")) - len(ids(prompt))
    assert len(first) < length
    return [*first, *second[: length - len(first)], *ids("\n"), *ids(prompt)]


def mxbai_ids(tokenizer: Any, query: str, document: str, max_length: int) -> list[int]:
    """`prepare_inputs` and `concat_input_ids` of mixedbread-ai/mxbai-rerank's mxbai_rerank_v2.py, cut as above."""
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    )
    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    prefix = ids(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n")
    suffix = [*ids("\n"), *ids(task), *ids("<|im_end|>\n<|im_start|>assistant\n")]
    first, second = ids(f"query: {query}"), [*ids("\n"), *ids(f"document: {document}")]
    length = max_length - len(prefix) - len(suffix)
    return [*prefix, *first, *second[: length - len(first)], *suffix]


OFFICIAL = {"qwen3": qwen_ids, "gemma": bge_ids, "qwen2": mxbai_ids}
ANSWERS = {"qwen3": ["yes", "no"], "gemma": ["Yes"], "qwen2": ["1", "0"]}


@pytest.mark.parametrize("length", [1000, 280])
@pytest.mark.parametrize("name", CARDS)
def test_card_writes_pairs_as_its_authors_do(name: str, length: int, causal: Any, tmp_path: Path) -> None:
    import transformers

    path = causal(CARDS[name])
    model = card(name, path, tmp_path).model
    network = load_network(model, path, {})
    encoder = TextEncoder(network.tokenizer_json, with_template(model, network.manifest), length)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    theirs = [OFFICIAL[CARDS[name]](tokenizer, *pair, length) for pair in TEXTS]
    assert [row.ids.tolist() for row in encoder.encode(TEXTS)] == theirs
    assert max(map(len, theirs)) == 280 or length == 1000


@pytest.mark.parametrize("name", LARGER)
def test_larger_models_of_a_family_are_asked_the_same(name: str, tmp_path: Path) -> None:
    larger, small = (card(model, tmp_path, tmp_path).model for model in (name, LARGER[name]))
    for key in ("template", "instruction", "yes_token", "no_token"):
        assert getattr(larger, key) == getattr(small, key)


@pytest.mark.parametrize("name", CARDS)
def test_card_scores_as_the_whole_language_model_does(name: str, causal: Any, tmp_path: Path) -> None:
    import torch
    import transformers

    kind = CARDS[name]
    path = causal(kind)
    settings = ["models.reranker.max_length_tokens=null", "pipeline.stages.precise.use.backend=torch"]
    stage = card(name, path, tmp_path, *settings)
    stage.load()
    pairs = [(Query(str(place), query), Document(str(place), text)) for place, (query, text) in enumerate(TEXTS)]
    ours = stage.score(pairs, Call())
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    network = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    answers = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ANSWERS[kind]]
    for score, pair in zip(ours, TEXTS, strict=True):
        ids = torch.tensor([OFFICIAL[kind](tokenizer, *pair, 512)])
        with torch.inference_mode():
            logits = network(input_ids=ids).logits[0, -1, answers].numpy()
        np.testing.assert_allclose(score, logits[0] - (logits[1] if len(logits) == 2 else 0), atol=1e-4, rtol=1e-4)
    assert np.ptp(ours) > 1e-2


def test_instruction_can_be_set_on_the_command_line(causal: Any, tmp_path: Path) -> None:
    stage = card("qwen3_reranker_0_6b", causal("qwen3"), tmp_path, "models.reranker.instruction='Find a wall'")
    assert stage.model.instruction == "Find a wall"
    assert stage.model.template[1] == "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
