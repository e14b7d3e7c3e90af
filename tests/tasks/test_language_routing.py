"""A corpus of several languages, end to end: detection, analyzers and routes by question, figures by language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import Pipeline, report
from orchestrator.evaluation.by_language import by_language, tell_for
from orchestrator.evaluation.findings import find
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.quality import Quality, Ranked, measure_quality
from orchestrator.plugins.recall.bm25 import BM25Recall
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Query

DOCUMENTS = {
    "en-eye": "Raised pressures inside the eye damage the optic nerve.",
    "en-flu": "Older people are vaccinated against influenza every year.",
    "zh-eye": "眼压升高会慢慢损害视神经。",
    "zh-flu": "老人每年应当接种流感疫苗。",
    "de-eye": "Erhöhter Augendruck schädigt den Sehnerv.",
    "de-flu": "Ältere Menschen werden jedes Jahr gegen Grippe geimpft.",
}
QUESTIONS = {
    "en-eye": "what does a damaged optic nerve come from?",
    "en-flu": "who should be vaccinating against influenza?",
    "zh-eye": "什么会损害视神经？",
    "zh-flu": "谁应当接种流感疫苗？",
    "de-eye": "Was schädigt den Sehnerv?",
}
ROUTED = """
defaults:
  - /recall@stages.bm25_en.use: bm25
  - /recall@stages.bm25_zh.use: bm25
  - /recall@stages.bm25_other.use: bm25
  - /fusion@stages.fused.use: rrf
  - /rerank@stages.precise_zh.use: boost
  - /rerank@stages.precise_other.use: boost
  - _self_
stages:
  bm25_en: {top_k: 9, use: {language: en}, when: {language: en}}
  bm25_zh: {top_k: 9, use: {language: zh}, when: {language: zh}}
  bm25_other: {top_k: 9, use: {language: de}, when: {not_language: [en, zh]}}
  fused: {inputs: [bm25_en, bm25_zh, bm25_other], top_k: 9}
  precise_zh: {top_k: 1, when: {language: [zh, zh-en]}, use: {boosts: {b: {field: lifted, number: {max: 1}}}}}
  precise_other: {top_k: 2, when: {not_language: [en, zh]}, use: {boosts: {b: {field: lifted, number: {max: 1}}}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sorted by language, so that the first documents do not tell of the others."""
    tmp_path = tmp_path_factory.mktemp("several")
    (tmp_path / "qrels").mkdir()
    rows = [{"_id": name, "text": text, "lifted": 0.0} for name, text in DOCUMENTS.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    asked = [{"_id": f"q-{name}", "text": text} for name, text in QUESTIONS.items()]
    (tmp_path / "queries.jsonl").write_text("\n".join(json.dumps(row) for row in asked))
    judged = "".join(f"q-{name}\t{name}\t1\n" for name in QUESTIONS)
    (tmp_path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "routed.yaml").write_text(ROUTED)
    return tmp_path


@pytest.fixture(scope="module")
def routed(folder: Path) -> Iterator[Pipeline]:
    words = ["pipeline=routed", f"corpus.path={folder}", "corpus.language=auto", f"storage.root={folder / 'root'}"]
    with Pipeline.compose(words, config_dir=folder / "conf") as pipeline:
        yield pipeline


def test_a_corpus_of_several_languages_is_told_by_documents_from_all_of_it(routed: Pipeline) -> None:
    assert routed.corpus_spec.language == "und"


@pytest.mark.parametrize(
    ("name", "recall", "rerank"),
    [
        ("en-flu", "bm25_en", None),
        ("zh-eye", "bm25_zh", "precise_zh"),
        ("de-eye", "bm25_other", "precise_other"),
    ],
)
def test_a_question_is_searched_and_reranked_by_what_knows_its_language(
    routed: Pipeline, name: str, recall: str, rerank: str | None
) -> None:
    result = routed.search(QUESTIONS[name])
    assert result.doc_ids[0] == name
    ran = [stage.stage for stage in result.trace.stages if stage.skipped is None]
    assert ran == [recall, "fused", *([rerank] if rerank else [])]
    assert json.loads(report.result_json(result))["trace"]["language"] == result.trace.language == name[:2]
    console = Console(width=160)
    with console.capture() as shown:
        console.print(report.trace_tree(result))
    assert f"question in {name[:2]}" in shown.get().splitlines()[-1]


def test_stems_of_the_language_find_what_plain_words_would_not(routed: Pipeline) -> None:
    words = ["pipeline=bm25", f"corpus.path={routed.corpus_spec.path}", "corpus.language=und"]
    with Pipeline.compose([*words, f"storage.root={routed.storage_root}"]) as plain:
        assert "en-eye" not in plain.search("damages eyes").doc_ids
    assert routed.search(Query("q", "damages eyes", "en")).doc_ids[0] == "en-eye"


def quality_of(pipeline: Pipeline, language: str = "und") -> Quality:
    corpus, measures = pipeline.corpus, Measures(["RR@10"])
    return measure_quality(pipeline.search_many, corpus.queries(), corpus.qrels(), measures, tell=tell_for(language))


def test_figures_stand_by_language_where_questions_are_in_several(routed: Pipeline) -> None:
    quality = quality_of(routed)
    found = by_language(quality, "RR@10")
    assert [(language, one.n_queries) for language, one in found.items()] == [("en", 2), ("zh", 2), ("de", 1)]
    for language, one in found.items():
        own = [
            values["RR@10"] for query_id, values in quality.per_query.items() if query_id.startswith(f"q-{language}-")
        ]
        assert one.means["precise_other"] == pytest.approx(sum(own) / len(own))
    assert found["zh"].means["bm25_en"] == 0.0
    console = Console(width=120)
    with console.capture() as shown:
        console.print(report.language_table(quality, "RR@10"))
    head, *rows = [line.split() for line in shown.get().splitlines() if line.strip() and "─" not in line]
    assert head == ["RR@10", "by", "language", "queries", "fused", "precise_zh", "precise_other"]
    assert rows[0] == [
        "en",
        "2",
        *(f"{found['en'].means[name]:.4f}" for name in ("fused", "precise_zh", "precise_other")),
    ]
    figures = report.evaluation_json(quality, None, find(quality, "RR@10", [], 0, 7))
    assert figures["by_language"]["zh"] == {"n_queries": 2, "RR@10": dict(found["zh"].means)}  # type: ignore[index]


def test_questions_of_one_language_have_no_such_table(folder: Path) -> None:
    words = ["pipeline=bm25", f"corpus.path={folder}", f"storage.root={folder / 'root'}"]
    with Pipeline.compose(words) as pipeline:
        quality = quality_of(pipeline, "en")
        assert by_language(quality, "RR@10") == {}
        assert report.language_table(quality, "RR@10") is None
        several = quality_of(pipeline)
    assert {one.n_queries for one in by_language(several, "RR@10").values()} == {1, 2}, "told, without any gate"


def test_languages_of_few_questions_stand_together() -> None:
    per_query = {f"q{n}": {"RR@10": float(n % 2)} for n in range(200)}
    languages = {f"q{n}": "en" for n in range(196)} | {"q196": "la", "q197": "la", "q198": "nl", "q199": "fr"}
    system = Ranked(per_query=per_query)
    graph = StageGraph.of([StageSpec("bm25", BM25Recall("en"), 9)])
    quality = Quality({}, {}, {}, per_query, {}, 200, systems={"bm25": system}, nodes=graph.nodes, languages=languages)
    console = Console(width=120)
    with console.capture() as shown:
        console.print(report.language_table(quality, "RR@10"))
    rows = [line.split() for line in shown.get().splitlines() if line.strip() and "─" not in line][1:]
    assert rows == [["en", "196", f"{98 / 196:.4f}"], ["3", "others", "4", f"{(0 + 1 + 0 + 1) / 4:.4f}"]]
