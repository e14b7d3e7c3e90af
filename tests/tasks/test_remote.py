"""Remote models from the command line: the whole way over HTTP, and keys that stay out of every file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import LocalServer, Reply, embeddings

SECRET = "sk-very-secret"


def everything_written(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def remote_embedder(server: LocalServer) -> list[str]:
    model = ["model@models.embedder=openai_compatible", f"models.embedder.base_url={server.url}/v1"]
    return [*model, "models.embedder.name=tiny"]


def test_a_search_over_remote_embeddings_counts_and_keeps_the_key_to_itself(
    orchestrate: Callable, corpus: Path, server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = embeddings
    monkeypatch.setenv("EMBED_API_KEY", SECRET)
    words = ["run", "optic nerve of the eye", "pipeline=dense", f"corpus.path={corpus}", *remote_embedder(server)]
    words += ["models.embedder.usd_per_million_tokens=1000000"]
    done = orchestrate(*words, "format=json", "log.level=debug")
    assert done.code == 0, done.err
    line = json.loads(done.out)
    assert len(line["results"]) == 4
    (stage,) = line["trace"]["stages"]
    assert stage["tokens"] == stage["cost_usd"] == 5, "the question; documents were paid for when they were indexed"
    assert {seen.headers["authorization"] for seen in server.seen} == {f"Bearer {SECRET}"}
    assert SECRET not in done.out + done.err + everything_written(tmp_path)
    asked = len(server.seen)
    assert orchestrate(*words).code == 0
    assert len(server.seen) == asked + 2, "one request to learn the length, one for the question: documents are kept"


def test_a_refused_key_is_one_message_that_names_the_stage(
    orchestrate: Callable, corpus: Path, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda seen: Reply(401, {"error": {"message": f"Incorrect API key provided: {SECRET}"}})
    monkeypatch.setenv("EMBED_API_KEY", SECRET)
    words = ["run", "x", "pipeline=dense", f"corpus.path={corpus}", *remote_embedder(server)]
    done = orchestrate(*words)
    assert done.code == 1
    assert "tiny at http://127.0.0.1" in done.err
    assert "answered 401: Incorrect API key provided: ***. The key is missing or wrong" in done.err
    assert "Traceback" not in done.err
    assert SECRET not in done.err
