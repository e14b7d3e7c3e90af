"""Long documents: passages too short or too long for their model, and windows that read more than they seem to."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.lint.facts import Facts, n_read
from orchestrator.lint.finding import Finding
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.passages import Passages
from orchestrator.stack.routes import given_by

_LEAST_TOKENS = 32
"""Some two sentences: below that a passage seldom holds an answer and what it is about."""
_MANY_PASSAGES = 1000
"""Of one question: more than any shipped stack reads documents."""
_CHARS_A_TOKEN = 4
"""Of English; other languages have fewer, so that their chunks are rather longer in tokens."""
_USUAL_TOKENS = 512


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """What `passages` does that may not be meant."""
    for node in graph.nodes:
        if node.passages.cuts:
            yield from _size(node)
            if node.passages.how == "windows":
                yield from _many(node, n_read(node, graph, facts), given_by(node, graph)[0])
                yield from _cut_twice(node, facts)


def _size(node: Node) -> Iterator[Finding]:
    size, limit = node.passages.size, getattr(getattr(node.stage, "model", None), "max_length_tokens", None)
    if size is None:
        return
    if size < _LEAST_TOKENS:
        found = f"{size} tokens, the title's among them, seldom hold an answer and what it is about"
        yield Finding(f"{node.path}.passages.size", f"{found}. Expected {_LEAST_TOKENS} or more, or null for what fits")
    elif isinstance(limit, int) and size >= limit:
        found = f"{size} does not fit: the model reads {limit} tokens, the question's among them, and passages are cut"
        yield Finding(f"{node.path}.passages.size", f"{found}. Expected well below {limit}, or null for what fits")


def _many(node: Node, read: int, above: str) -> Iterator[Finding]:
    most = _most_windows(node.passages)
    path = f"{node.path}.passages.max_windows"
    if most is None:
        found = f"null: a long one of {read} documents is read in as many windows as it has, whatever that takes"
        yield Finding(path, f"{found}. Expected a number, for example 8: those that match the question best are read")
    elif read * most > _MANY_PASSAGES:
        found = (
            f"{most} windows of each of {read} documents are up to {read * most:,} passages a question, each of which"
        )
        yield Finding(path, f"{found} costs what a document costs. Lower it, or top_k of '{above}'")


def _most_windows(passages: Passages) -> int | None:
    """Of one document; with `aggregate: first` no other window is read."""
    return 1 if passages.aggregate == "first" else passages.max_windows


def _cut_twice(node: Node, facts: Facts) -> Iterator[Finding]:
    chars = facts.corpus.chunk_chars
    if chars is None:
        return
    tokens, size = chars // _CHARS_A_TOKEN, node.passages.size or _USUAL_TOKENS
    chunks = f"the corpus is cut into chunks of {chars} characters already (corpus.chunk), some {tokens} tokens"
    if tokens <= size:
        message = f"windows, but {chunks}: nearly all of them go whole. Expected truncate"
    else:
        message = f"windows of {size} tokens, and {chunks}: each text is cut twice. One of the two will do"
    yield Finding(f"{node.path}.passages.how", message, "remark")
