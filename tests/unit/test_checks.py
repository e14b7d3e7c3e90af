"""Checks of single values: what passes, and what the messages say."""

from __future__ import annotations

import pytest

from orchestrator.checks import check_choice, check_counts, check_counts_or_null
from orchestrator.errors import ConfigError


def test_a_choice_that_is_none_is_told_with_the_choices_and_the_closest() -> None:
    with pytest.raises(ConfigError) as error:
        check_choice("use.kind", "fest", ["fast", "slow"])
    assert str(error.value) == "use.kind: found 'fest'; choices: fast, slow. Did you mean 'fast'?"
    check_choice("use.kind", "fast", ["fast", "slow"])


def test_choices_need_not_be_words() -> None:
    with pytest.raises(ConfigError, match="monotone: found 2; choices: -1, 0, 1"):
        check_choice("monotone", 2, (-1, 0, 1))


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "3", None])
def test_what_is_no_whole_number_from_1_is_refused(value: object) -> None:
    with pytest.raises(ConfigError) as error:
        check_counts(threads=4, batch_tokens=value)
    assert str(error.value) == f"batch_tokens: found {value!r}; expected a whole number from 1"


def test_null_passes_only_where_it_means_something() -> None:
    check_counts_or_null(threads=None, dim=1)
    with pytest.raises(ConfigError) as error:
        check_counts_or_null(threads=None, dim=False)
    assert str(error.value) == "dim: found False; expected a whole number from 1, or null"
