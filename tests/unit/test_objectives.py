"""What a sweeper is told: which figures, and where better lies."""

from __future__ import annotations

from enum import Enum

import pytest

from orchestrator.errors import ConfigError
from orchestrator.evaluation.latency import Latency
from orchestrator.evaluation.objectives import Objectives
from orchestrator.evaluation.quality import Quality

MEASURES = ["nDCG@10", "R@100"]
QUALITY = Quality({"nDCG@10": 0.5, "R@100": 0.9}, {"nDCG@10": 0.4, "R@100": 0.8}, {}, {}, {})
LATENCY = Latency({"p50": 10.0, "p95": 20.0, "p99": 30.0}, {}, 5)


class Direction(Enum):
    """As hydra-optuna-sweeper has it."""

    minimize = 1
    maximize = 2


@pytest.mark.parametrize(
    ("names", "values", "directions"),
    [
        (None, 0.5, ("maximize",)),
        ("R@100", 0.9, ("maximize",)),
        (["nDCG@10", "p95_ms"], (0.5, 20.0), ("maximize", "minimize")),
        (["p99_ms", "served R@100", "p50_ms"], (30.0, 0.8, 10.0), ("minimize", "maximize", "minimize")),
    ],
)
def test_names_become_figures(names: list[str] | str | None, values: object, directions: tuple[str, ...]) -> None:
    objectives = Objectives.of(names, MEASURES, latency_queries=5)
    assert objectives.values(QUALITY, LATENCY) == values
    assert objectives.directions == directions


@pytest.mark.parametrize(
    ("names", "latency_queries", "message"),
    [
        (["nDCG@10", "p95"], 5, r"^task\.objectives\[1\]: found 'p95'; choices .*p95_ms.* Did you mean 'p95_ms'\?"),
        (
            ["AP"],
            5,
            r"^task\.objectives\[0\]: found 'AP'; choices \(the measures are those of task\.measures\): nDCG@10",
        ),
        (["p95_ms"], 0, r"^task\.objectives\[0\]: found 'p95_ms' with latency_queries=0, which times nothing"),
        ([], 5, r"^task\.objectives: found none; expected at least one"),
        (5, 5, r"^task\.objectives: found 5; expected a name, a list of names, or null$"),
    ],
)
def test_what_an_evaluation_does_not_have_is_told_before_it_begins(
    names: list[str], latency_queries: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Objectives.of(names, MEASURES, latency_queries)


def test_a_sweeper_has_to_look_where_better_lies() -> None:
    one, two = Objectives.of(None, MEASURES, 5), Objectives.of(["nDCG@10", "p95_ms"], MEASURES, 5)
    for given in ("maximize", Direction.maximize, ["maximize"], None):
        one.check_directions(given)
    two.check_directions([Direction.maximize, "minimize"])
    with pytest.raises(
        ConfigError, match=r"found minimize for task\.objectives nDCG@10; expected .*direction=maximize$"
    ):
        one.check_directions("minimize")
    expected = (
        r"^hydra\.sweeper\.direction: found maximize .* expected hydra\.sweeper\.direction=\[maximize,minimize\]$"
    )
    with pytest.raises(ConfigError, match=expected):
        two.check_directions("maximize")
