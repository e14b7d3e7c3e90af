"""A tokenizer's chat template as parts of text, so that scoring needs neither Jinja nor transformers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.models.manifest import Template
from orchestrator.models.modules import unsupported
from orchestrator.models.reranker import Chat
from orchestrator.models.template import PairTemplate

# Private-use characters: no template has them, and nothing that trims or escapes text touches them.
_MARKS = {"query": "\ue000query\ue001", "document": "\ue000document\ue001", "instruction": "\ue000instruction\ue001"}
_PROBES = (("what, exactly?", "It is; no.\n"), (" a b ", "\n文書 данные "), ("", "x"))


def read_chat(chat: Chat, tokenizer: Any, where: str) -> Template:
    """The template that writes a pair as the tokenizer's chat template does.

    Args:
        chat: how the template is called.
        tokenizer: of transformers.
        where: the model, for messages.

    Raises:
        ConfigError: the chat template drops a text, or does more than put it in its place.
    """
    written = _render(chat, tokenizer, _MARKS["query"], _MARKS["document"], _MARKS["instruction"])
    counts = [written.count(_MARKS[name]) for name in ("query", "document")]
    if counts != [1, 1] or written.index(_MARKS["query"]) > written.index(_MARKS["document"]):
        raise unsupported(
            "reranker", f"a chat template in {where} that does not write query and document once", "query, document"
        )
    for name, mark in _MARKS.items():
        written = written.replace(mark, "{" + name + "}")
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    parts = tuple(_split(written, special))
    for strip in (False, True):
        template = Template(parts=parts, instruction=chat.prompt or "", strip=strip)
        if _agrees(template, chat, tokenizer):
            return template
    raise unsupported("reranker", f"a chat template in {where} that changes its texts", "templates that place them")


def _render(chat: Chat, tokenizer: Any, query: str, document: str, prompt: str) -> str:
    texts = {"system": prompt if chat.prompt else "", "query": query, "document": document}
    messages = [
        {"role": role, "content": [{"type": "text", "text": text}] if chat.structured else text}
        for role, text in texts.items()
        if text or role != "system"
    ]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **chat.settings))


def _split(written: str, special: Sequence[str]) -> Iterator[str]:
    """Parts at the special tokens: the tokenizer parts its text there by itself, so that tokens stay as they are."""
    words = "|".join(re.escape(word) for word in sorted(special, key=len, reverse=True))
    fixed = ""
    for piece in re.split(f"({words})", written) if words else [written]:
        if "{query}" in piece or "{document}" in piece:
            yield from [fixed] if fixed else []
            yield piece
            fixed = ""
        else:
            fixed += piece
    yield from [fixed] if fixed else []


def _agrees(template: Template, chat: Chat, tokenizer: Any) -> bool:
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    ours = PairTemplate(template, copy, None).encode(_PROBES)
    written = [_render(chat, tokenizer, *pair, chat.prompt or "") for pair in _PROBES]
    theirs = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in written]
    return [row.tolist() for row in ours] == theirs
