"""Search the sample, then rerank texts of one's own: python examples/in_python/search.py."""

from __future__ import annotations

from orchestrator import Pipeline

PASSAGES = [
    "The Great Wall of China is more than twenty thousand kilometres long.",
    "Glaucoma damages the optic nerve, often because of high pressure inside the eye.",
    "Peripheral vision is lost first, so many people notice nothing for years.",
]


def main() -> None:
    with Pipeline.compose(["+scenario=low_latency"]) as pipeline:
        result = pipeline.search("who is likely to lose their eyesight?")
        for candidate in result.ranked.head(3):
            text = result.documents[candidate.doc_id].text
            print(f"{candidate.rank}. {candidate.score:.3f}  {candidate.doc_id}  {text[:70]}...")
        print(", ".join(f"{stage.stage} {stage.ms:.1f} ms" for stage in result.trace.stages))

        reranked = pipeline.rerank("what does glaucoma do to the eye?", PASSAGES)
        for candidate in reranked.ranked:
            print(f"{candidate.rank}. {candidate.score:.3f}  {PASSAGES[int(candidate.doc_id)]}")


if __name__ == "__main__":
    main()
