"""Prices by name, and a limit that is kept before a request is sent."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from orchestrator.errors import ConfigError, PermanentError, TransientError
from orchestrator.services.spending import Price, Purse

TABLE = {"m": {"input": 2.0, "output": 8.0, "source": "a page"}, "searched": {"units": 2.5}}


def test_a_price_is_that_of_the_name_and_the_own_one_wins() -> None:
    assert Price.of(TABLE, "m") == Price(input=2.0, output=8.0)
    assert Price.of(TABLE, "m", output=1.0, cached_input=None) == Price(input=2.0, output=1.0)
    assert Price.of(TABLE, "other", input=3.0) == Price(input=3.0)
    assert not Price.of(TABLE, "other").known
    assert not Price.of(None, None).known
    assert Price.of({"free": {"input": 0}}, "free").known


def test_what_things_cost() -> None:
    price = Price(input=2.0, cached_input=0.5, output=8.0, units=2.5)
    assert price.usd(input=1000, cached=400, output=10) == pytest.approx((600 * 2.0 + 400 * 0.5 + 10 * 8.0) / 1e6)
    assert Price(input=2.0).usd(input=1000, cached=400) == pytest.approx(1000 * 2.0 / 1e6)
    assert price.usd(units=4) == pytest.approx(4 * 2.5 / 1000)
    assert Price().usd(input=1000, output=1000, units=5) == 0.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (2.5, r"^prices\.m: found 2\.5; expected columns such as \{input: 1\.0, output: 4\.0\}"),
        ({"inptu": 1.0}, r"^prices\.m: no column 'inptu'; columns: input, cached_input, output, units, source"),
        ({"input": "1"}, r"^prices\.m: found '1'; expected US dollars"),
        ({"output": True}, r"^prices\.m: found True"),
        ({"output": float("nan")}, r"^prices\.m: found nan"),
    ],
)
def test_a_row_that_is_wrong_is_named(row: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Price.of({"m": row}, "m")


def test_the_dearest_is_set_aside_and_the_rest_comes_back() -> None:
    purse = Purse("a service", 1.0)
    with purse.reserved(0.75) as pay:
        with (
            pytest.raises(PermanentError, match=r"not asked: the request can cost \$0\.5000, and \$0\.2500 is left of"),
            purse.reserved(0.5),
        ):
            pytest.fail("nothing is sent")
        pay(0.25)
    with purse.reserved(0.75):
        pass
    with pytest.raises(PermanentError, match=r"\$0\.0000 is left of max_usd=\$1"), purse.reserved(0.001):
        pass


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (PermanentError("s", "no", 400), 0.0),
        (TransientError("s", "busy", 503), 0.0),
        (TransientError("s", "no answer"), 0.75),
        (ValueError("a bug"), 0.75),
        (KeyboardInterrupt(), 0.75),
    ],
)
def test_what_ended_without_an_answer_may_have_been_paid_for(error: BaseException, kept: float) -> None:
    purse = Purse("s", 1.0)
    with pytest.raises(type(error)), purse.reserved(0.75):
        raise error
    with purse.reserved(1.0 - kept):
        pass
    with pytest.raises(PermanentError), purse.reserved(0.01):
        pass


def test_no_limit_lets_everything_through() -> None:
    purse = Purse("s", None)
    assert not purse.limited
    with purse.reserved(1e9):
        pass
    with purse.reserved(1e9):
        pass


def test_threads_never_spend_more_than_there_is() -> None:
    purse, served = Purse("s", 1.0), []

    def ask() -> None:
        try:
            with purse.reserved(0.125) as pay:
                pay(0.125)
            served.append(1)
        except PermanentError:
            pass

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served) == 8
