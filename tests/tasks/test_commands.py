"""The verbs, as a person types them: output, exit code, messages, folders."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

BM25 = "pipeline=bm25"
AWKWARD = [
    "what causes glaucoma?",
    "青光眼的症状是什么？",
    "日本語の質問、句読点。",
    "ما هي أعراض السكري؟",
    "it's the patient's eye",
    'the "evil" eye',
    "'quoted'",
    '"quoted"',
    "a, b",
    "a,b,c",
    "x=1",
    "key=value other=thing",
    "{a: 1}",
    "[1, 2, 3]",
    "(parentheses) and more)",
    "null",
    "true",
    "1e3",
    "42",
    "-3.5",
    "0x1F",
    "${oc.env:HOME}",
    "${models.reranker}",
    r"back\slash",
    "ends with backslash\\",
    r"\'mixed\"",
    "#hash and ; semicolon",
    "tab\tand newline\nhere",
    "😀 emoji 👩‍⚕️",
    "~tilde",
    "+plus",
    "-dash first",
    "--help me",
    "glob(*)",
    "choice(a,b)",
    "range(1,3)",
    "a:b",
    "@at %percent &and *star",
    " leading and trailing ",
    "run",
    "very long " * 2000,
]


def some(every: int) -> list[object]:
    """Every so-many-th of the awkward queries; the others are slow tests: tests/unit/test_words.py has them all too."""
    return [pytest.param(q, marks=[] if place % every == 0 else pytest.mark.slow) for place, q in enumerate(AWKWARD)]


@pytest.mark.parametrize("query", some(4), ids=lambda query: query[:20])
def test_awkward_queries_arrive_as_typed(query: str, corpus: Path, orchestrate: Callable) -> None:
    done = orchestrate("run", query, BM25, f"corpus.path={corpus}", "format=json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["query"]["text"] == query


@pytest.mark.parametrize("query", some(9), ids=lambda query: query[:20])
def test_awkward_queries_arrive_as_typed_in_a_sweep(query: str, corpus: Path, orchestrate: Callable) -> None:
    words = ["-m", f"query={query}", BM25, f"corpus.path={corpus}", "format=json", "pipeline.stages.bm25.top_k=1,2"]
    done = orchestrate(*words)
    assert done.code == 0, done.err
    assert [json.loads(line)["query"]["text"] for line in done.out.splitlines()] == [query, query]


def test_an_empty_query_is_refused(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate("run", "", BM25, f"corpus.path={corpus}")
    assert done.code == 2
    assert done.err.startswith("orchestrate: query: is empty; expected a question")


def test_run_answers_and_keeps_what_it_answered(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate("run", "optic nerve", BM25, f"corpus.path={corpus}")
    assert done.code == 0
    assert "Glaucoma damages the optic nerve" in done.out
    assert "total" in done.out
    (folder,) = Path("outputs").glob("*/*-run-*")
    (line,) = (folder / "results.jsonl").read_text().splitlines()
    assert {row["doc_id"] for row in json.loads(line)["results"]} == {"d1", "d3"}
    first = (folder / "run.trec").read_text().splitlines()[0].split()
    assert first[:2] == ["q1", "Q0"]
    (told,) = (folder / "trace.jsonl").read_text().splitlines()
    candidates = json.loads(told)["candidates"]
    assert candidates["columns"] == ["doc_id", "dropped_by", "bm25.rank", "bm25.score"]
    assert {row[0] for row in candidates["rows"]} == {"d1", "d3"}
    assert (folder / ".hydra" / "overrides.yaml").exists()


@pytest.mark.parametrize(("trace", "keys"), [("stages", {"query", "degraded", "trace"}), ("off", None)])
def test_how_much_is_kept_of_the_trace_is_an_option(
    trace: str, keys: set[str] | None, orchestrate: Callable, corpus: Path
) -> None:
    done = orchestrate(BM25, f"corpus.path={corpus}", "corpus.max_queries=2", f"trace={trace}")
    assert done.code == 0, done.err
    assert "run.done" in done.err
    assert "queries=2" in done.err.replace("\x1b[0m", "").replace("\x1b[36m", "").replace("\x1b[35m", "")
    (folder,) = Path("outputs").glob("*/*-run-*")
    lines = (folder / "trace.jsonl").read_text().splitlines() if (folder / "trace.jsonl").exists() else []
    assert [set(json.loads(line)) for line in lines] == ([keys] * 2 if keys else [])


def test_json_has_the_documented_shape(orchestrate: Callable, corpus: Path) -> None:
    line = json.loads(orchestrate("run", "optic nerve", BM25, f"corpus.path={corpus}", "format=json").out)
    assert set(line) == {"query", "results", "degraded", "trace"}
    row = {"rank", "doc_id", "score", "score_kind", "scored", "title", "text", "metadata", "scores", "passage"}
    assert set(line["results"][0]) == row
    assert line["results"][0]["passage"] is None, "only where a stage read windows"
    assert line["results"][0]["scores"] == {"bm25": line["results"][0]["score"]}
    assert set(line["trace"]) == {"total_ms", "budget_ms", "enforced", "language", "stages"}
    assert set(line["trace"]["stages"][0]) >= {
        "stage",
        "kind",
        "ms",
        "n_in",
        "n_out",
        "n_scored",
        "skipped",
        "started_ms",
        "allowed_ms",
        "cache_hits",
        "tokens",
        "cost_usd",
        "repairs",
        "repairs_by_kind",
        "passages",
    }


def test_answers_are_told_as_spans_where_that_is_wanted(
    orchestrate: Callable, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.sdk")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    done = orchestrate("run", "optic nerve", BM25, f"corpus.path={corpus}", "log.otel=true", "format=json")
    assert done.code == 0, done.err
    assert json.loads(done.out)
    assert '"name": "recall bm25"' in done.err
    assert '"name": "orchestrate.query"' in done.err


def test_without_a_question_the_corpus_asks(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(BM25, f"corpus.path={corpus}", "corpus.max_queries=2", "format=trec")
    assert done.code == 0
    assert {line.split()[0] for line in done.out.splitlines()} == {"q1", "q2"}


def test_a_query_nobody_matches_is_answered_with_nothing(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate("run", "xylophone", BM25, f"corpus.path={corpus}")
    assert done.code == 0
    assert "no document found" in done.out


def test_evaluate_prints_what_trec_eval_computes(orchestrate: Callable, corpus: Path) -> None:
    import pytrec_eval

    done = orchestrate("evaluate", BM25, f"corpus.path={corpus}", "format=json", "latency_queries=2")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    (folder,) = Path("outputs").glob("*/*-evaluate-*")
    run: dict[str, dict[str, float]] = {}
    for line in (folder / "run.trec").read_text().splitlines():
        query_id, _, doc_id, _, score, _ = line.split()
        run.setdefault(query_id, {})[doc_id] = float(score)
    qrels = {"q1": {"d1": 2, "d3": 1}, "q2": {"d2": 1}}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map", "recall.100"}).evaluate(run)
    for ours, name in (("nDCG@10", "ndcg_cut_10"), ("AP", "map"), ("R@100", "recall_100")):
        assert figures["metrics"][ours] == pytest.approx(sum(values[name] for values in theirs.values()) / len(qrels))
    assert figures["n_queries"] == 2
    assert set(figures["latency_ms"]) == {"p50", "p95", "p99"}
    assert json.loads((folder / "metrics.json").read_text())["metrics"] == figures["metrics"]


def test_evaluate_shows_every_stage(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate("evaluate", BM25, f"corpus.path={corpus}", "latency_queries=0", "measures=[nDCG@10,MRR@10]")
    assert done.code == 0, done.err
    assert "MRR@10" in done.out
    assert "2 judged queries" in done.out


def test_check_prints_the_graph_and_makes_no_folder(orchestrate: Callable) -> None:
    done = orchestrate("check", "+scenario=large_candidates")
    assert done.code == 0
    assert "LateInteractionRerank" in done.out
    assert "no findings" in done.out
    assert list(Path.cwd().iterdir()) == []


def test_check_names_what_is_doubtful(orchestrate: Callable) -> None:
    done = orchestrate("check", "+scenario=high_precision", "corpus.language=zh", "pipeline.stages.precise.top_k=500")
    assert done.code == 0
    text = " ".join(done.out.split())
    assert "pipeline.stages.precise.top_k: 500 is more than its input can pass on: shortlist (100)" in text
    assert "its model knows en, the corpus is 'zh'" in text


def test_check_as_json_is_one_object(orchestrate: Callable) -> None:
    words = ["pipeline=gated", "budget_ms=200", "pipeline.stages.precise.passages.how=head_tail", "format=json"]
    done = orchestrate("check", *words)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    *_, precise = found["stages"]
    assert {key: precise[key] for key in ("stage", "kind", "class", "model", "backend", "inputs", "top_k")} == {
        "stage": "precise",
        "kind": "rerank",
        "class": "CrossEncoderRerank",
        "model": "cross-encoder/ms-marco-MiniLM-L6-v2",
        "backend": "onnx",
        "inputs": ["fused"],
        "top_k": 10,
    }
    gate = {"max_margin": 0.08, "margin_rank": 3, "margin": "relative", "min_candidates": 4}
    assert (precise["when"], precise["cut"]) == (gate, {"how": "gap", "min": 3})
    assert precise["passages"]["how"] == "head_tail"
    assert precise["predicted_ms"]["p50"] > found["budget_ms"] == 200
    warnings = [finding for finding in found["findings"] if finding["severity"] == "warning"]
    assert [finding["path"] for finding in warnings] == ["pipeline.stages.precise"]
    assert "where it runs, is predicted to take" in warnings[0]["message"]


def test_check_is_strict_where_asked(orchestrate: Callable) -> None:
    grows = "pipeline.stages.shortlist.top_k=500"
    assert orchestrate("check", grows).code == 0
    done = orchestrate("check", grows, "task.strict=true")
    assert done.code == 2
    assert "warning: pipeline.stages.shortlist.top_k: 500 is more than" in done.out
    assert "orchestrate: pipeline.stages.shortlist.top_k: 500 is more than its input can pass on" in done.err
    same = "pipeline.stages.fused.top_k=10"
    remarked = orchestrate("check", same, "strict=true")
    assert (remarked.code, "1 remark(s)" in remarked.out) == (0, True)


def test_check_refuses_trec(orchestrate: Callable) -> None:
    done = orchestrate("check", "format=trec")
    assert (done.code, done.out) == (2, "")
    assert "format: found trec; check ranks no documents. Choices: table, json" in done.err


def test_check_tells_what_this_machine_lacks(orchestrate: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("COHERE_API_KEY", raising=False)
    hosted = " ".join(orchestrate("check", "+scenario=hosted_api").out.split())
    assert "missing: pipeline.stages.precise.use.api_key: missing; rerank-v4.0-fast at https://api.cohere.com" in hosted
    words = ["corpus.path=nowhere", "+scenario=learned", "model@models.embedder=bge_m3"]
    done = orchestrate("check", *words)
    text = " ".join(done.out.split())
    assert done.code == 0, done.err
    assert re.search("missing: corpus.path: [^ ]*nowhere: found nothing there", text)
    assert "missing: pipeline.stages.dense.use.embedder: BAAI/bge-m3 is not on this machine" in text
    trained = " ".join(orchestrate("check", "+scenario=learned").out.split())
    assert (
        "missing: pipeline.stages.fused.use: learns from judged queries, and nothing was trained for it. Train it: "
        "orchestrate train fusion +scenario=learned. Or end without it: fusion@pipeline.stages.fused.use=rrf"
    ) in trained


def test_check_knows_the_payload_of_a_corpus_that_was_read_before(orchestrate: Callable, tmp_path: Path) -> None:
    lines = [{"_id": "a", "text": "one", "team": "A"}, {"_id": "b", "text": "two", "year": 2001}]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = f"corpus.path={tmp_path / 'docs.jsonl'}"
    words = ["pipeline=bm25", path]
    only = "pipeline.stages.dense.use.filter={must: [{key: taem, match: {value: A}}]}"
    assert "no findings" in orchestrate("check", "pipeline=dense", path, only).out, "it was not read yet"
    assert orchestrate("index", *words).code == 0
    text = " ".join(orchestrate("check", "pipeline=dense", path, only).out.split())
    assert (
        "warning: pipeline.stages.dense.use.filter.must[0].key: no document has a field 'taem', of a sample of 2; "
        "fields: team, year. Did you mean 'team'?"
    ) in text


def test_index_is_incremental(orchestrate: Callable, corpus: Path) -> None:
    words = ["index", BM25, f"corpus.path={corpus}"]
    first, second = orchestrate(*words), orchestrate(*words)
    assert "built=bm25" in first.err.replace("'", "").replace("\x1b", "")
    assert "nothing: all up to date" in second.err
    with (corpus / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "d5", "text": "A new document about xylophones."}) + "\n")
    third = orchestrate("run", "xylophone", BM25, f"corpus.path={corpus}", "format=json")
    assert "index.building" in third.err
    assert "corpus" in third.err
    assert [row["doc_id"] for row in json.loads(third.out)["results"]] == ["d5"]


def test_a_sweep_prints_one_answer_a_job(orchestrate: Callable, corpus: Path) -> None:
    done = orchestrate(
        "-m", "run", "optic nerve", BM25, f"corpus.path={corpus}", "format=json", "pipeline.stages.bm25.top_k=1,2"
    )
    assert done.code == 0, done.err
    assert [len(json.loads(line)["results"]) for line in done.out.splitlines()] == [1, 2]


def test_configs_of_ones_own_add_names(orchestrate: Callable, corpus: Path) -> None:
    folder = Path("mine/pipeline")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "defaults:\n  - /recall@stages.bm25.use: bm25\n  - _self_\nstages:\n  bm25: {top_k: 1}\n"
    )
    done = orchestrate(
        "--config-dir", "mine", "run", "optic nerve", "pipeline=mine", f"corpus.path={corpus}", "format=json"
    )
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["results"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["evalute"],
            "'evalute'; verbs: cache, calibrate, check, evaluate, explain, index, plan, report, run, train. "
            "Did you mean 'evaluate'?",
        ),
        (["+scenario=low_latensy"], "low_latency"),
        (["pipeline=nope"], "Available options in 'pipeline'"),
        (["pipeline.stages.fused.topk=3"], "pipeline.stages.fused.topk"),
        (["pipeline.stages.fusd.top_k=3"], "Did you mean 'fused'?"),
        (["model@models.reranker=nope"], "Available options in 'model'"),
        (["budget_ms=soon"], "budget_ms"),
        (["format=xml"], "format"),
        ([BM25, "trace=all"], "task.trace: found 'all'; expected full, stages or off"),
        (["+pipeline.stages.fused.use.kk=3"], "takes no argument 'kk'; arguments: k, weights"),
        (["corpus.path=nowhere"], "nowhere"),
        (["corpus.split=nope"], "corpus.split"),
        (["evaluate", BM25, "measures=[nDCG@ten]"], "task.measures[0]: 'nDCG@ten' is no measure"),
    ],
)
def test_mistakes_get_one_clean_message_and_exit_code_2(words: list[str], message: str, orchestrate: Callable) -> None:
    done = orchestrate(*words)
    assert done.code == 2, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_failed_run_exits_with_1(orchestrate: Callable, corpus: Path) -> None:
    (corpus / "corpus.jsonl").write_text('{"_id": "d1", "text": "fine"}\n{"_id": "d2"\n')
    done = orchestrate("run", "x", BM25, f"corpus.path={corpus}")
    assert done.code == 1
    assert "corpus.jsonl:2: " in done.err
    skipped = orchestrate("index", BM25, f"corpus.path={corpus}", "corpus.on_bad_line=skip")
    assert skipped.code == 0, skipped.err
    assert "skipped_lines=1" in skipped.err


def test_a_model_that_cannot_be_had_names_places_and_choices(orchestrate: Callable, corpus: Path) -> None:
    words = ["run", "x", f"corpus.path={corpus}", "pipeline=cross_encoder"]
    done = orchestrate(*words, "~pipeline.stages.dense", "pipeline.stages.fused.inputs=[bm25]")
    assert done.code == 1
    assert "cross-encoder/ms-marco-MiniLM-L6-v2" in done.err
    assert "looked in:" in done.err
    assert "models.reranker.path=" in done.err


def test_check_warns_where_a_filter_of_one_recall_is_none_of_the_result(orchestrate: Callable) -> None:
    only = "pipeline.stages.dense.use.filter={must: [{key: team, match: {value: A}}]}"
    done = orchestrate("check", "+scenario=hybrid", only)
    assert "pipeline.stages.bm25: brings documents that the filter of 'dense' leaves out" in " ".join(done.out.split())
    assert "no findings" in orchestrate("check", "+scenario=edge", only).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "enforce_budget=no", "budget_ms=20"], "task.enforce_budget: found 'no'; expected true or false"),
        (["evaluate", "enforce_budget=true"], "enforce_budget: true without a budget; set one, for example budget_ms="),
        (["check", "strict=maybe"], "task.strict: found 'maybe'; expected true or false"),
        (["index", "force=1"], "task.force: found 1; expected true or false"),
        (["run", "x", "text_chars=0"], "task.text_chars: found 0; expected a whole number from 1"),
        (["explain", "x", "docs=two"], "task.docs: found 'two'; expected a whole number from 1"),
    ],
)
def test_an_option_that_is_no_truth_or_number_is_refused(words: list[str], message: str, orchestrate: Callable) -> None:
    done = orchestrate(*words)
    assert done.code == 2
    assert message in done.err
