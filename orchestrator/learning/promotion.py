"""Whether a model that was just trained takes the place of the one that serves: `promote: always | if_better`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ConfigError, IndexStateError, ModelNotFoundError
from orchestrator.evaluation.measures import Measures, Qrels, Rankings
from orchestrator.evaluation.significance import Comparison, compare
from orchestrator.learned.manifest import Manifest
from orchestrator.learned.trained import ModelPlace, query_hashes
from orchestrator.learning import training
from orchestrator.learning.verdict import Verdict
from orchestrator.stage import Json
from orchestrator.storage import current_generation
from orchestrator.types import Query

CHOICES = ("always", "if_better")
STANDING = "the model that serves"


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a new model.

    Attributes:
        promoted: whether it serves from now on.
        words: why, in a sentence or two.
        against: the comparison that decided; None where there was nothing to compare with.
        candidate: the folder of the new model in the folder of its run; a stage's `path` can name it.
    """

    promoted: bool
    words: str
    against: Comparison | None
    candidate: Path

    def as_json(self) -> dict[str, Json]:
        """The key `promotion` of a training's JSON."""
        return {"promoted": self.promoted, "words": self.words, "candidate": str(self.candidate)}


@dataclass(frozen=True, slots=True)
class Trial:
    """A new model, its rankings of queries that it did not learn from, and what else is needed to compare.

    Attributes:
        verdict: of the new model.
        learned: query id -> its ranking, for the queries held out.
        pool: the candidates.
        qrels: the judgements.
        queries: all queries of the training.
        measures: the first one decides.
        depth: of the rankings.
        parents: where documents are judged and chunks are ranked.
        seed: of the randomization test.
    """

    verdict: Verdict
    learned: Rankings
    pool: training.Pool
    qrels: Qrels
    queries: Sequence[Query]
    measures: Measures
    depth: int
    parents: training.Parents | None
    seed: int


def promote_if_better(
    place: ModelPlace, manifest: Manifest, trial: Trial, candidate: Path, loaded: Collection[str]
) -> Promotion:
    """Put the new model in its place where it is better than what serves there, by more than chance.

    It is compared on the queries held out that neither learned from. Where nothing serves, it has to beat the best of
    the simpler systems. A model of another stack cannot be compared with, and stays.

    Args:
        place: of the model; its stage has just learned.
        manifest: of the new model.
        trial: what is known of it.
        candidate: where the new model is kept in either case.
        loaded: stages whose score kinds are known.
    """
    place.write(manifest, candidate)
    try:
        serves, why_not = _open_standing(place, loaded)
    except ConfigError:
        return Promotion(False, _other_stack(place), None, candidate)
    against = _against_standing(place, trial) if serves else _against_simpler(trial.verdict)
    promoted = against is not None and against.is_better
    if promoted:
        written = current_generation(candidate)
        assert written is not None  # written above
        place.stage.open_model(written)
        place.write(manifest)
    return Promotion(promoted, _words(trial, against, serves, why_not), against, candidate)


def _open_standing(place: ModelPlace, loaded: Collection[str]) -> tuple[bool, str]:
    """Whether a model serves in this place, by which the stage then scores; else why none does.

    Raises:
        ConfigError: one for another stack lies there.
    """
    try:
        place.open(loaded, None)
    except ModelNotFoundError:
        return False, "no model serves there"
    except IndexStateError:
        return False, "the model there cannot be read"
    return True, ""


def _against_standing(place: ModelPlace, trial: Trial) -> Comparison | None:
    """None where too few queries are left that neither model learned from."""
    texts = {query.query_id: query for query in trial.queries}
    fair = [key for key in trial.learned if query_hashes([texts[key]])[0] not in place.learned_from]
    if len(fair) < 2:
        return None
    qrels = {key: trial.qrels[key] for key in fair}
    standing = training.ordered(place.stage, trial.pool, fair, trial.depth, trial.parents)
    first = trial.measures.names[0]
    new, old = (
        {key: row[first] for key, row in trial.measures.per_query(qrels, {k: r[k] for k in fair if k in r}).items()}
        for r in (trial.learned, standing)
    )
    return compare(new, {STANDING: old}, seed=trial.seed)[0]


def _against_simpler(verdict: Verdict) -> Comparison | None:
    return max(verdict.comparisons, key=lambda other: other.other_mean, default=None)


def _other_stack(place: ModelPlace) -> str:
    return (
        f"The new model of '{place.node.name}' is not put there: a model for another stack lies there, and the two are "
        f"not compared. promote=always replaces it, or take another path ({place.node.path}.use.path)."
    )


def _words(trial: Trial, against: Comparison | None, serves: bool, why_not: str) -> str:
    name, measure = trial.verdict.name, trial.measures.names[0]
    what = f"of '{name}'"
    if against is None and serves:
        return (
            f"The model {what} that serves stays: it learned from the queries held out, so that nothing compares them."
        )
    if against is None:
        return f"The new model {what} is not put there: no query was held out, so that nothing says what it is worth."
    n = against.wins + against.ties + against.losses
    figures = f"{measure} {against.mean:.4f} against {against.other_mean:.4f} of {against.other}"
    figures += f" on {n} queries that neither learned from" if serves else f", the best of the rest ({why_not})"
    figures += f" (p {against.p_holm:.2g})"
    if against.is_better:
        return f"The new model {what} serves from now on: {figures}."
    stays = "The one that serves stays" if serves else "It is not put there, and there is still none"
    return f"The new model {what} is not better beyond chance: {figures}. {stays}."
