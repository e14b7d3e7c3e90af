"""Quality and latency of a pipeline, in two passes that do not disturb each other: the door to `evaluation`.

Quality: queries in batches, on the uncut ranking. Latency: a sample of queries one at a time, warm.
"""

from orchestrator.evaluation.latency import Answer, Latency, measure_latency
from orchestrator.evaluation.measures import Measures, PerQuery, Qrels, Rankings
from orchestrator.evaluation.quality import JudgedIds, Quality, Ranked, measure_quality
from orchestrator.evaluation.spent import Spent
from orchestrator.evaluation.work import Work

__all__ = [
    "Answer",
    "JudgedIds",
    "Latency",
    "Measures",
    "PerQuery",
    "Qrels",
    "Quality",
    "Ranked",
    "Rankings",
    "Spent",
    "Work",
    "measure_latency",
    "measure_quality",
]
