"""A pipeline map becomes a StageGraph: which stage reads which, in what order, and what can be known to be wrong.

Pure: needs no model, no index, no corpus on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from orchestrator.errors import ConfigError, PipelineError, check_ms, did_you_mean
from orchestrator.stack.cuts import TOP_K, Cut
from orchestrator.stack.gates import ALWAYS, Gate
from orchestrator.stack.passages import WHOLE, Passages
from orchestrator.stack.policy import BY_PLACE, OnError
from orchestrator.stage import Json, KnowsTokens, Stage, Trainable
from orchestrator.types import Need, ScoreKind

Kind = Literal["recall", "fusion", "rerank"]
CacheUse = Literal["auto", "on", "off"]
Settings = Mapping[str, Json]
Behaviour = Literal["recall", "fusion", "pointwise", "list", "window"]

_BEHAVIOURS: Mapping[str, tuple[Behaviour, Kind]] = {
    "retrieve": ("recall", "recall"),
    "fuse": ("fusion", "fusion"),
    "score": ("pointwise", "rerank"),
    "rescore": ("list", "rerank"),
    "order": ("window", "rerank"),
}
_DEFAULT_NEEDS: Mapping[Behaviour, frozenset[Need]] = {
    "pointwise": frozenset({"text"}),
    "window": frozenset({"text"}),
}


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One entry of the pipeline map, its object built.

    Attributes:
        name: its key in the map.
        stage: the object under `use`.
        top_k: how many it passes on.
        inputs: names of the stages it reads, as written; empty means the default of its kind.
        passages: what it reads of long documents.
        when: for which queries it runs.
        cut: how many of `top_k` it passes on.
        on_error: what its failure does.
        max_ms: how long it may take for one query, whatever is left of the budget; None sets no limit of its own.
        cache: whether its scores are kept on disk.
        settings: all that stands under `use`, resolved, as plain values without secrets; None for an object that was
            built in Python, of whose arguments nothing is known.
    """

    name: str
    stage: Stage
    top_k: int
    inputs: tuple[str, ...] = ()
    passages: Passages = WHOLE
    when: Gate = ALWAYS
    cut: Cut = TOP_K
    on_error: OnError = BY_PLACE
    max_ms: float | None = None
    cache: CacheUse = "auto"
    settings: Settings | None = field(default=None, compare=False, repr=False)

    @property
    def path(self) -> str:
        """YAML path of the stage."""
        return f"pipeline.stages.{self.name}"


@dataclass(frozen=True, slots=True)
class Node:
    """One stage of a graph that holds together: `inputs` are resolved, kind and behaviour known.

    Attributes:
        fallbacks: reranks that stand in for it when it fails, in order. What they score stands under names of their
            own, `<stage>~1` and so on: their scores are not the stage's.
        stands_for: of a fallback, the stage that it stands in for.
        settings: as in StageSpec.
    """

    name: str
    stage: Stage
    top_k: int
    inputs: tuple[str, ...]
    kind: Kind
    behaviour: Behaviour
    needs: frozenset[Need]
    passages: Passages = WHOLE
    when: Gate = ALWAYS
    cut: Cut = TOP_K
    on_error: OnError = BY_PLACE
    max_ms: float | None = None
    cache: CacheUse = "auto"
    settings: Settings | None = field(default=None, compare=False, repr=False)
    fallbacks: tuple[Node, ...] = ()
    stands_for: str | None = None

    @property
    def path(self) -> str:
        """YAML path of the stage."""
        return f"pipeline.stages.{self.stands_for or self.name}"

    @property
    def is_remote(self) -> bool:
        """Whether the stage waits for somebody else's machine."""
        return bool(getattr(self.stage, "is_remote", False))

    @property
    def can_be_cut(self) -> bool:
        """Whether the stage, stopped early, still gives something of what it was asked for."""
        return self.behaviour == "window" or (self.behaviour == "pointwise" and not self.is_remote)


@dataclass(frozen=True, slots=True)
class StageGraph:
    """Stages in an order in which each comes after its inputs; the last one is the result."""

    nodes: tuple[Node, ...]

    @property
    def result(self) -> Node:
        """The stage that nobody reads."""
        return self.nodes[-1]

    @property
    def all_nodes(self) -> tuple[Node, ...]:
        """The stages, each followed by those that stand in for it when it fails."""
        return tuple(one for node in self.nodes for one in (node, *node.fallbacks))

    def failing_with_stages(self) -> StageGraph:
        """The same graph in which a failure that may pass ends the question, where no `on_error` says otherwise."""
        fail = OnError("fail")
        return StageGraph(
            tuple(replace(node, on_error=fail) if node.on_error == BY_PLACE else node for node in self.nodes)
        )

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    @classmethod
    def of(cls, specs: Sequence[StageSpec]) -> StageGraph:
        """The graph of a pipeline map.

        Args:
            specs: the stages in the order of the file; a rerank without inputs reads the stage above it.

        Raises:
            PipelineError: no stage, a class that is no stage, an unknown input, a cycle, two results, a `top_k` < 1.
        """
        if not specs:
            raise PipelineError("pipeline.stages", "no stage; a pipeline needs at least one recall stage")
        nodes = {spec.name: _node(spec, list(specs)[:place]) for place, spec in enumerate(specs)}
        for node in nodes.values():
            _check_inputs(node, nodes)
        order = _order(nodes)
        unread = set(nodes) - {name for node in nodes.values() for name in node.inputs}
        if len(unread) > 1:
            names = ", ".join(f"'{node.name}'" for node in nodes.values() if node.name in unread)
            raise PipelineError(
                "pipeline.stages",
                f"nobody reads {names}; exactly one stage may be the result. Name the others in some `inputs`, "
                f"or drop them (`~pipeline.stages.<name>`)",
            )
        last = unread.pop()
        return cls((*(nodes[name] for name in order if name != last), nodes[last]))

    def ancestors(self, name: str) -> tuple[str, ...]:
        """Every stage that `name` reads, directly or not, the nearest first."""
        found: dict[str, None] = {}
        waiting = list(self[name].inputs)
        while waiting:
            nearest = waiting.pop(0)
            if nearest not in found and any(node.name == nearest for node in self.nodes):
                found[nearest] = None
                waiting += self[nearest].inputs
        return tuple(found)

    def upto(self, name: str) -> StageGraph:
        """The graph of a pipeline that ended at stage `name`."""
        before = self.ancestors(name)
        return StageGraph((*(node for node in self.nodes if node.name in before), self[name]))

    def sources(self, name: str) -> tuple[str, ...]:
        """The stages whose scores `name` sees: the inputs of a fusion, every stage before a rerank; in graph order."""
        node = self[name]
        return node.inputs if node.kind == "fusion" else tuple(other.name for other in self.upto(name).nodes[:-1])

    def without_recall(self) -> tuple[tuple[str, ...], StageGraph]:
        """What is left for candidates that the caller brings: the reranks, fed by `replaced` stages.

        Returns:
            replaced: stages whose output the caller's candidates stand for.
            graph: the stages from the first rerank on; inputs name `replaced` stages or each other.

        Raises:
            PipelineError: there is no rerank stage.
        """
        kept = [node for node in self.nodes if self._after_rerank(node)]
        if not kept:
            raise PipelineError("pipeline.stages", "no rerank stage: nothing can rerank the documents given")
        names = {node.name for node in kept}
        replaced = dict.fromkeys(name for node in kept for name in node.inputs if name not in names)
        return tuple(replaced), StageGraph(tuple(kept))

    def _after_rerank(self, node: Node) -> bool:
        return node.kind == "rerank" or any(self._after_rerank(self[name]) for name in node.inputs)


def _node(spec: StageSpec, above: Sequence[StageSpec]) -> Node:
    behaviours = [found for method, found in _BEHAVIOURS.items() if callable(getattr(spec.stage, method, None))]
    if len(behaviours) != 1:
        found = type(spec.stage).__name__
        methods = ", ".join(_BEHAVIOURS)
        problem = "has none of the methods" if not behaviours else "has more than one of the methods"
        raise PipelineError(f"{spec.path}.use", f"{found} {problem} {methods}; a stage has exactly one")
    behaviour, kind = behaviours[0]
    if spec.top_k < 1:
        raise PipelineError(f"{spec.path}.top_k", f"{spec.top_k} is too small; expected 1 or more")
    inputs = spec.inputs
    if kind == "rerank" and not inputs and above:
        inputs = (above[-1].name,)
    needs: frozenset[Need] = frozenset(getattr(spec.stage, "needs", _DEFAULT_NEEDS.get(behaviour, ())))
    graph_keys = (spec.passages, spec.when, spec.cut, spec.on_error, spec.max_ms, spec.cache, spec.settings)
    stand_ins = _fallbacks(spec, kind, above)
    node = Node(spec.name, spec.stage, spec.top_k, inputs, kind, behaviour, needs, *graph_keys, fallbacks=stand_ins)
    _check_passages(node)
    _check_limits(node)
    _check("when", node, lambda: node.when.refuse_for(kind))
    check_cut(node, *getattr(spec.stage, "score_kinds", (spec.stage.score_kind,)))
    return node


def check_cut(node: Node, *kinds: ScoreKind) -> None:
    """Refuse a `cut` that judges none of the kinds that the stage's scores may be.

    Raises:
        PipelineError: with the path of what is wrong.
    """
    if node.cut.settings:
        _check("cut", node, lambda: node.cut.refuse_for(*kinds))


def _fallbacks(spec: StageSpec, kind: Kind, above: Sequence[StageSpec]) -> tuple[Node, ...]:
    path = f"{spec.path}.on_error.fallback"
    if spec.on_error.fallbacks and kind != "rerank":
        raise PipelineError(path, f"a {kind} has no stand-in; choices of on_error: fail, skip")
    found = []
    for place, stage in enumerate(spec.on_error.fallbacks, start=1):
        if isinstance(stage, Trainable):
            raise PipelineError(
                path, f"{type(stage).__name__} learns from its place in a pipeline and stands in for none"
            )
        passages = spec.passages if isinstance(stage, KnowsTokens) else WHOLE
        other = StageSpec(f"{spec.name}~{place}", stage, spec.top_k, spec.inputs, passages, max_ms=spec.max_ms)
        node = replace(_node(other, above), stands_for=spec.name)
        if node.kind != "rerank":
            raise PipelineError(path, f"{type(stage).__name__} is a {node.kind}; expected a rerank")
        found.append(node)
    return tuple(found)


def _check_limits(node: Node) -> None:
    check_ms(f"{node.path}.max_ms", node.max_ms)
    if node.max_ms is not None and node.kind == "fusion":
        raise PipelineError(
            f"{node.path}.max_ms", "a fusion is waited for: without it there is no answer; leave it out"
        )
    if node.cache == "on" and (node.behaviour not in ("pointwise", "window") or "model_id" not in dir(node.stage)):
        found = type(node.stage).__name__
        lacks = "names no model (`model_id`)" if node.behaviour in ("pointwise", "window") else "scores no pairs"
        raise PipelineError(
            f"{node.path}.cache", f"{found} {lacks}, so its scores cannot be kept; expected auto or off"
        )


def _check(key: str, node: Node, refuse: Callable[[], None]) -> None:
    """Let what stands under `key` refuse the stage; the path of what it says continues the node's."""
    try:
        refuse()
    except ConfigError as error:
        raise PipelineError(f"{node.path}.{key}{'.' if error.path else ''}{error.path}", error.detail) from None


def _check_passages(node: Node) -> None:
    how, found = node.passages.how, type(node.stage).__name__
    if not node.passages.cuts:
        return
    path = f"{node.path}.passages.how"
    if node.behaviour not in ("pointwise", "window") or "text" not in node.needs:
        advice = "corpus.chunk cuts documents for recalls and vectors"
        raise PipelineError(path, f"found '{how}', but {found} reads no document pair by pair; {advice}")
    if not isinstance(node.stage, KnowsTokens):
        lacks = f"{found} does not say where its tokens are (`token_spans`, `room`)"
        raise PipelineError(path, f"found '{how}', but {lacks}; expected truncate")
    if node.behaviour == "window" and how == "windows" and node.passages.max_windows != 1:
        raise PipelineError(
            f"{node.path}.passages.max_windows",
            f"is {node.passages.max_windows}; {found} orders documents and scores no passage, so it can read one "
            f"window of each: set it to 1",
        )


def _check_inputs(node: Node, nodes: Mapping[str, Node]) -> None:
    path = f"{node.path}.inputs"
    for place, name in enumerate(node.inputs):
        if name not in nodes:
            choices = ", ".join(other for other in nodes if other != node.name)
            raise PipelineError(f"{path}[{place}]", f"no stage '{name}'; stages: {choices}.{did_you_mean(name, nodes)}")
        if name in node.inputs[:place]:
            raise PipelineError(f"{path}[{place}]", f"'{name}' stands there twice")
    if node.kind == "recall" and node.inputs:
        raise PipelineError(path, f"a recall stage reads the corpus, not {', '.join(node.inputs)}; leave it out")
    if node.kind == "fusion" and not node.inputs:
        others = ", ".join(name for name in nodes if name != node.name)
        raise PipelineError(path, f"a fusion names the stages that it merges; stages: {others}")
    if node.kind == "rerank" and len(node.inputs) != 1:
        found = f"reads {', '.join(node.inputs)}" if node.inputs else "is the first stage and reads nothing"
        raise PipelineError(path, f"a rerank reads exactly one stage; this one {found}. Merge lists with a fusion")
    _ask(node, "check_inputs", node.inputs)
    _ask(node, "check_score_kinds", {name: nodes[name].stage.score_kind for name in node.inputs})


def _ask(node: Node, check: str, inputs: object) -> None:
    """Let the stage refuse its inputs; the path of what it says continues the node's."""
    method = getattr(node.stage, check, None)
    if method is not None:
        _check("use", node, lambda: method(inputs))


def _order(nodes: Mapping[str, Node]) -> list[str]:
    try:
        return list(TopologicalSorter({name: node.inputs for name, node in nodes.items()}).static_order())
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise PipelineError("pipeline.stages", f"stages read each other in a circle: {cycle}") from None
