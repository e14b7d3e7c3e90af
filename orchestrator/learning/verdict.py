"""What a learned stage did on queries held out of its training, beside the simpler stacks, and in words."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.evaluation.measures import Measures, Qrels, Rankings
from orchestrator.evaluation.significance import Comparison, compare
from orchestrator.stage import Json


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the learned stage did on queries that it did not learn from.

    Attributes:
        name: of the learned stage.
        n_queries: how many were held out.
        means: system -> measure -> mean; the learned stage first.
        measure: the one that is compared.
        comparisons: the learned stage beside each other system.
    """

    name: str
    n_queries: int
    means: Mapping[str, Mapping[str, float]]
    measure: str
    comparisons: Sequence[Comparison]

    def rows(self) -> list[dict[str, Json]]:
        """One row a system: means, and for the others the comparison; numbers as they are."""
        tests = {other.other: _tests(other) for other in self.comparisons}
        return [{"system": system, **means, **tests.get(system, {})} for system, means in self.means.items()]

    def as_json(self) -> dict[str, Json]:
        """The content of comparison.json."""
        return {
            "stage": self.name,
            "measure": self.measure,
            "queries": self.n_queries,
            "wins": self.wins,
            "verdict": self.words(),
            "systems": self.rows(),
        }

    def as_csv(self) -> str:
        """The content of comparison.csv: the rows, with a header."""
        rows = self.rows()
        text = io.StringIO()
        columns = list(dict.fromkeys(key for row in rows for key in row)) or ["system"]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    @property
    def wins(self) -> bool:
        """Whether it is better than every other system by more than chance."""
        return bool(self.comparisons) and all(other.is_better for other in self.comparisons)

    def words(self) -> str:
        """The verdict in a sentence or two."""
        if not self.comparisons:
            return "No query was held out: whether the model is any good is not known."
        best = max(self.comparisons, key=lambda other: other.other_mean)
        figures = f"{self.measure} {best.mean:.4f} against {best.other_mean:.4f} of {best.other}, the best of the rest"
        on = f"on {self.n_queries} queries that it did not learn from"
        if self.wins:
            return f"The learned stage '{self.name}' wins {on}: {figures} (p {best.p_holm:.2g}, corrected)."
        open_ = [other for other in self.comparisons if not other.is_better]
        named = ", ".join(f"{other.other} (p {other.p_holm:.2g})" for other in open_)
        worse = any(other.is_worse for other in open_)
        lead = "is worse than one of the others" if worse else "does not win"
        advice = "Keep the simpler stack" if worse or best.difference <= 0 else "More judged queries may decide"
        return f"The learned stage '{self.name}' {lead} {on}: {figures}. Not beaten beyond chance: {named}. {advice}."


def judge(
    name: str,
    learned: Rankings,
    others: Mapping[str, Rankings],
    qrels: Qrels,
    query_ids: Sequence[str],
    measures: Measures,
    seed: int,
) -> Verdict:
    """The learned rankings beside those of other systems, on the same queries.

    Args:
        name: of the learned stage.
        learned: query id -> ids.
        others: system -> query id -> ids.
        qrels: all judgements; documents that no stage found count as missed.
        query_ids: those held out.
        measures: what to compute; the first is compared.
        seed: of the randomization test.
    """
    kept = {query_id: qrels[query_id] for query_id in query_ids}
    systems = {name: learned, **others}
    per_query = {
        system: measures.per_query(kept, {query_id: ids[query_id] for query_id in kept if query_id in ids})
        for system, ids in systems.items()
    }
    first = measures.names[0]
    values = {system: {query_id: row[first] for query_id, row in rows.items()} for system, rows in per_query.items()}
    own = values.pop(name)
    comparisons = compare(own, values, seed=seed) if kept else []
    means = {system: measures.mean(rows) for system, rows in per_query.items()} if kept else {}
    return Verdict(name, len(kept), means, first, comparisons)


def _tests(other: Comparison) -> dict[str, Json]:
    values = dataclasses.asdict(other)
    kept = ("wins", "ties", "losses", "p_t", "p_randomization", "p_holm")
    return {"difference": other.difference, **{name: values[name] for name in kept}}
