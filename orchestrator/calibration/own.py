"""What only the configured pipeline has: services, models of other names, stages of the user's own; and its corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from orchestrator.calibration.corpora import count_lengths, questions
from orchestrator.calibration.ladder import MOST_WARM_UP, Climbed, CountTokens, climb
from orchestrator.calibration.timed import Timed, model_of, row_key
from orchestrator.costs.fit import fit
from orchestrator.costs.kept import CorpusFigures
from orchestrator.errors import OrchestratorError
from orchestrator.loading import OnBuild, silent
from orchestrator.log import get_logger
from orchestrator.pipeline import Pipeline
from orchestrator.stack.cuts import TOP_K
from orchestrator.stack.gates import ALWAYS
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.policy import BY_PLACE
from orchestrator.stage import Indexed, Progress, Trainable, is_remote, no_progress

log = get_logger()

_DEPTHS = (5, 20)
_QUESTIONS = 12


@dataclass(frozen=True)
class Ways:
    """How the configured pipeline is measured.

    Attributes:
        cards: name of a model on the hub -> name of its card.
        count: tokens of a text.
        seconds: for each stage, about.
        remotes: whether services may be asked.
        progress: told about long work.
        on_build: told before an index is built.
    """

    cards: Mapping[str, str]
    count: CountTokens
    seconds: float
    remotes: bool = True
    progress: Progress = no_progress
    on_build: OnBuild = silent


def time_own_stages(own: Pipeline, search: Node, timed: Timed, ways: Ways) -> None:
    """Times of the reranks of `own` of which `timed` has none yet; under `missing` those that gave none, and why.

    Each reads what `search` finds, by itself: of the user's corpus nothing else is indexed, and nothing embedded.

    Args:
        own: the configured pipeline; it is not loaded.
        search: a recall over its corpus.
        timed: is added to.
        ways: how it is measured.
    """
    for node in _named(own, timed):
        key = row_key(node, ways.cards)
        if timed.is_measured(key) or key in timed.absent:
            continue
        alone = _alone(search, node)
        why = _why_not(alone, ways) or _time(own, alone, timed, ways)
        if why is None:
            timed.missing.pop(key[0], None)
        else:
            timed.missing[key[0]] = why


def _named(own: Pipeline, timed: Timed) -> Iterator[Node]:
    """Reranks that say under which kind they are reckoned; predictions have no use for times of the others."""
    for node in own.graph.nodes:
        if node.kind == "rerank" and getattr(node.stage, "cost_kind", None) is None:
            timed.missing[node.name] = f"its class, {type(node.stage).__name__}, names no cost_kind"
        elif node.kind == "rerank":
            yield node


def _alone(search: Node, rerank: Node) -> StageGraph:
    """The rerank behind one search, for every question and without a stand-in."""
    first = replace(search, name=f"~{search.name}")  # as no stage of the user's is called
    inputs = (first.name,)
    free = replace(rerank, inputs=inputs, when=ALWAYS, cut=TOP_K, max_ms=None, on_error=BY_PLACE, fallbacks=())
    return StageGraph((first, free))


def _why_not(alone: StageGraph, ways: Ways) -> str | None:
    """Why a rerank is not timed behind one search; None where it is."""
    node, over_sample = alone.result, "models.embedder and models.multi_vector are measured over the sample"
    if "vectors" in node.needs:
        return f"it reads vectors of the whole corpus, of which calibrate embeds nothing; {over_sample}"
    if "statistics" in node.needs or isinstance(node.stage, Indexed):
        return f"it reads an index of the whole corpus, of which calibrate builds BM25's alone; {over_sample}"
    if "scores" in node.needs or isinstance(node.stage, Trainable):
        return "it reads scores of the stages before it, and calibrate runs it behind BM25 alone"
    if not ways.remotes and (services := services_of(alone, ways.cards)):
        return f"it asks {', '.join(services)}, and task.remotes=false"
    return None


def _time(own: Pipeline, alone: StageGraph, timed: Timed, ways: Ways) -> str | None:
    """Time the rerank; gives why there are no times, where there are none."""
    node = alone.result
    try:
        found = _climbed(own, alone, ways)
    except OrchestratorError as error:
        return str(error)
    key = row_key(node, ways.cards)
    timed.cost_usd += found.cost_usd
    timed.keep(key, found.points[node.name], node.stage)
    if timed.is_measured(key):
        return None
    return f"it did its work for none of the questions: {found.shortfalls.get(node.name, '-')}"


def _climbed(own: Pipeline, alone: StageGraph, ways: Ways) -> Climbed:
    asked, _ = questions(own, _QUESTIONS)
    for service in services_of(alone, ways.cards):
        most = len(_DEPTHS) * (MOST_WARM_UP + len(asked))
        log.info("calibrate.asks", service=service, most_questions=most, switch="task.remotes=false")
    steps = [{alone.nodes[0].name: depth} for depth in _DEPTHS]
    with Pipeline(alone, own.corpus_spec, own.storage_root) as pipeline:
        pipeline.load(ways.progress, ways.on_build)
        return climb(pipeline, steps, asked, ways.count, ways.seconds)


def services_of(graph: StageGraph, cards: Mapping[str, str]) -> list[str]:
    """Somebody else's models that a question to the stages asks, by name; each once."""
    asked = [node for node in graph.all_nodes if any(map(is_remote, _parts(node)))]
    return list(dict.fromkeys(f"{node.name} ({model_of(node.stage, cards) or 'a service'})" for node in asked))


def _parts(node: Node) -> Iterator[object]:
    yield node.stage
    yield from (getattr(node.stage, name, None) for name in ("embedder", "encoder"))


def corpus_figures_of(bm25: Pipeline, ways: Ways) -> dict[str, CorpusFigures]:
    """Lengths of questions and of the documents found for them, and what searching costs; empty without any words.

    Args:
        bm25: a pipeline of that one stage over the corpus.
        ways: how it is measured.
    """
    bm25.load(ways.progress, ways.on_build)
    asked, are_real = questions(bm25)
    lengths = count_lengths(bm25, asked, ways.count) if asked else None
    corpus = bm25.corpus
    if lengths is None:
        return {}
    if not are_real:
        log.warning("calibrate.no_questions", corpus=corpus.name, taken="the first words of its documents")
    found = climb(bm25, [{"bm25": 100}, {"bm25": 1000}], asked, ways.count, ways.seconds / 2).points["bm25"]
    rows = [fit("bm25", None, found, f"calibrate, {corpus.name}")] if len(found) > 1 else []
    return {corpus.key: CorpusFigures(corpus.name, corpus.content_hash, lengths, rows)}
