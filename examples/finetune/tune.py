"""Tunes a model on judged questions and says whether that helped.

python tune.py                        the sample, 60 questions: its embedder, in about a minute
python tune.py DIR                    your corpus in BEIR layout, learned from qrels/train.tsv
python tune.py DIR held_out=test      the same, judged on qrels/test.tsv; any other override works as well
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from orchestrator.cli import run

# So small a set asks for small steps: few questions a step, short texts, a check after every second step.
SMALL = ["held_out=0.3", "candidates_judged=20", "tuning.batch_size=8", "tuning.max_length_tokens=64"]
SMALL += ["tuning.check_steps=2", "tuning.check_candidates=10"]


def main(words: list[str]) -> int:
    corpus = words[:1] if words and "=" not in words[0] else []
    options = [f"corpus.path={Path(corpus[0]).resolve()}"] if corpus else SMALL
    code = run(["train", "bi_encoder", "output=tuned", *options, *words[len(corpus) :]])
    if code == 0:
        record = json.loads(Path("tuned/training.json").read_text())
        print(f"learned from {record['queries']['train']} questions, judged on {record['queries']['held_out']}")
        print("model card: tuned/README.md")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
