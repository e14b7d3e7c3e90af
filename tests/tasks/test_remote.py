"""Remote models from the command line: the whole way over HTTP, and keys that stay out of every file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import LocalServer, Reply, Seen, chat, cohere, embeddings

SECRET = "sk-very-secret"
NO_DENSE = ["~pipeline.stages.dense", "pipeline.stages.fused.inputs=[bm25]"]


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
    advice = "The key is missing or wrong; put it into the environment variable EMBED_API_KEY"
    assert f"answered 401: Incorrect API key provided: ***. {advice}" in done.err
    assert "Traceback" not in done.err
    assert SECRET not in done.err


def anything(seen: Seen) -> Reply:
    """One server for a whole stack: embeddings, Cohere's reranker, a chat model."""
    return {"/v1/embeddings": embeddings, "/v2/rerank": cohere, "/v1/chat/completions": chat}[seen.path](seen)


@pytest.mark.parametrize(("scenario", "path"), [("hosted_api", ""), ("prototype_llm", "/v1")])
def test_a_stack_of_remote_models_is_evaluated_in_one_command(
    scenario: str,
    path: str,
    orchestrate: Callable,
    corpus: Path,
    server: LocalServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.answer = anything
    for name in ("EMBED_API_KEY", "COHERE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    words = [f"+scenario={scenario}", f"corpus.path={corpus}", *remote_embedder(server)]
    words.append(f"pipeline.stages.precise.use.base_url={server.url}{path}")
    done = orchestrate("evaluate", *words, "format=json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["n_queries"] == 2
    assert 0.5 < told["metrics"]["nDCG@10"] <= 1.0
    assert set(told["baselines"]) >= {"bm25", "dense", "fused"}
    assert SECRET not in done.out + done.err + everything_written(tmp_path)


def test_the_dearest_request_of_a_run_is_known_before_it_is_sent(
    orchestrate: Callable, corpus: Path, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = anything
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    words = ["run", "optic nerve", "+scenario=prototype_llm", f"corpus.path={corpus}", *remote_embedder(server)]
    use = "pipeline.stages.precise.use"
    done = orchestrate(*words, f"{use}.base_url={server.url}/v1", f"{use}.max_usd=0.0001")
    assert done.code == 1
    assert "stage 'precise', query 'q1': gpt-5.6-luna at" in done.err
    assert "not asked: the request can cost $0.0" in done.err
    assert all(seen.path != "/v1/chat/completions" for seen in server.seen)


@pytest.mark.parametrize(
    ("words", "path", "variable"),
    [
        (["model@models.embedder=openai_3_small"], "pipeline.stages.dense.use.embedder.api_key", "OPENAI_API_KEY"),
        ([*NO_DENSE, "rerank@pipeline.stages.precise.use=jina"], "pipeline.stages.precise.use.api_key", "JINA_API_KEY"),
        (
            [*NO_DENSE, "pipeline.stages.precise.use.api_key='${oc.env:MY_KEY,null}'"],
            "pipeline.stages.precise.use.api_key",
            "MY_KEY",
        ),
    ],
)
def test_a_missing_key_is_named_by_its_yaml_path_and_its_variable(
    words: list[str], path: str, variable: str, orchestrate: Callable, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "JINA_API_KEY", "MY_KEY"):
        monkeypatch.delenv(name, raising=False)
    done = orchestrate("run", "x", "+scenario=hosted_api", f"corpus.path={corpus}", *words)
    assert done.code == 2
    assert done.err.startswith(f"orchestrate: {path}: missing; "), done.err
    assert f"wants one: export {variable}=..." in done.err
