"""How well two ways to compute a reranker agree, on texts that are built in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from orchestrator.models.manifest import Manifest
from orchestrator.models.tokens import Forward, TextEncoder
from orchestrator.types import Vectors

_TOP = 5
_NOISE = 0.1
# Three questions a language and the passages that answer them, then passages about something else.
_TEXTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "en": (
        (
            "Why does the sea rise and fall twice a day?",
            "How is bread made to rise without yeast?",
            "Who may cancel a contract within fourteen days?",
        ),
        (
            "Tides follow the moon. Its pull raises the water on the near side of the earth and, because the earth "
            "itself is pulled away from it, on the far side too; a harbour turns through both bulges in a day.",
            "Baking soda gives off gas as soon as it meets an acid such as buttermilk. The dough must go into the oven "
            "at once, since the bubbles do not last. A sourdough takes its gas from wild yeasts and bacteria instead.",
            "Consumers who bought at a distance, by telephone or over the internet, can withdraw within two weeks of "
            "delivery and need not give a reason. The seller returns the price and the cost of the cheapest delivery.",
            "Lighthouses were lit with whale oil before paraffin came; keepers trimmed the wick every four hours.",
            "Wheat was first grown between the Tigris and the Euphrates, some ten thousand years ago.",
            "A lease ends on the day that both sides have agreed. Notice is given in writing, three months before.",
        ),
    ),
    "zh": (
        ("为什么海水每天涨落两次？", "不用酵母怎样让面包发起来？", "谁可以在十四天内取消合同？"),
        (
            "潮汐跟着月亮走。月球的引力使朝向它的一侧海水升高；由于地球本身也被拉向月球，背向的一侧海水同样隆起。"
            "港口随地球自转，一天之内先后经过这两处隆起。",
            "小苏打一遇到酪乳之类的酸就会放出气体。气泡保持不了多久，所以面团要马上放进烤箱。酸面团则靠野生酵母和细菌产气。",
            "通过电话或网络远程购物的消费者，可以在收货后两周内退货，不必说明理由。卖方退还货款和最便宜的运费。",
            "煤油出现以前，灯塔烧的是鲸油；看守人每四个小时修剪一次灯芯。",
            "大约一万年前，人们最先在底格里斯河与幼发拉底河之间种植小麦。",
            "租约在双方商定的日子到期。解约须提前三个月以书面形式通知。",
        ),
    ),
}


def measure(
    exact: Forward, other: Forward, tokenizer: str, manifest: Manifest, languages: Iterable[str]
) -> dict[str, float]:
    """The figures of agreement, over three questions and twelve documents a language; each pair is scored alone.

    Args:
        exact: inputs to logits [1, 1], as they should be.
        other: the same, as they are to be judged.
        tokenizer: content of a `tokenizer.json`.
        manifest: of the model.
        languages: of its card; texts in English and Chinese are taken where nothing of the two is named.

    Returns:
        `order`, the share of pairs of documents that both order alike, among those whose exact scores differ by more
        than a tenth of the standard deviation (0 where none does), and `compared`, how many those are; `spearman`, the
        rank correlation, and `top_5`, the share of the five best that are the same, both a mean over the questions;
        `max_difference`, the largest difference of two scores in standard deviations; `pairs` of question and document.
        The standard deviation is that of the exact scores about the mean of their question.
    """
    encoder = TextEncoder(tokenizer, manifest, manifest.max_length_tokens)
    lists = [_pairs(question, _TEXTS[name][1]) for name in asked(languages) for question in _TEXTS[name][0]]
    rows = [[encoder.batch([tokens]) for tokens in encoder.encode(pairs)] for pairs in lists]
    both = [np.array([[float(run(inputs)[0, 0]) for inputs in row] for row in rows]) for run in (exact, other)]
    return compare(both[0], both[1])


def asked(languages: Iterable[str]) -> list[str]:
    """Languages of the texts that `measure` takes for a card of `languages`."""
    known = set(languages)
    return [name for name in _TEXTS if name in known] or list(_TEXTS)


def compare(exact: Vectors, other: Vectors) -> dict[str, float]:
    """The figures that `measure` returns, of scores [n_questions, n_documents]."""
    from scipy.stats import rankdata

    spread = float((exact - exact.mean(axis=1, keepdims=True)).std()) or math.inf
    alike, counted = 0, 0
    for one, two in zip(exact, other, strict=True):
        gaps, others = (np.subtract.outer(scores, scores)[np.triu_indices(len(scores), 1)] for scores in (one, two))
        clear = np.abs(gaps) > _NOISE * spread
        alike += int((np.sign(gaps) == np.sign(others))[clear].sum())
        counted += int(clear.sum())
    ranks = [(rankdata(one), rankdata(two)) for one, two in zip(exact, other, strict=True)]
    return {
        "order": alike / counted if counted else 0.0,
        "compared": float(counted),
        "spearman": float(np.mean([_correlation(one, two) for one, two in ranks])),
        f"top_{_TOP}": float(np.mean([_shared(one, two) for one, two in zip(exact, other, strict=True)])),
        "max_difference": float(np.abs(exact - other).max() / spread),
        "pairs": float(exact.size),
    }


def _pairs(question: str, passages: Sequence[str]) -> list[tuple[str, str]]:
    """With each passage, the first three within a long text, and the start of the same: twelve documents."""
    rest = " ".join(passages[3:])
    documents = [*passages, *(f"{rest} {text} {rest}" for text in passages[:3]), *(text[:40] for text in passages[:3])]
    return [(question, document) for document in documents]


def _correlation(one: Vectors, two: Vectors) -> float:
    return float(np.corrcoef(one, two)[0, 1]) if one.std() and two.std() else 0.0


def _shared(one: Vectors, two: Vectors) -> float:
    best = [set(np.argsort(-scores, kind="stable")[:_TOP].tolist()) for scores in (one, two)]
    return len(best[0] & best[1]) / _TOP
