"""What remote models cost, and a limit that is kept before a request is sent and not after."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from orchestrator.errors import ConfigError, PermanentError, RemoteError

Pay = Callable[[float], None]
"""Says what a request cost in the end, in US dollars."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs. None is a price that is not known.

    Attributes:
        input: US dollars per million tokens sent.
        cached_input: the same, for tokens that the service still held; None is the price of `input`.
        output: US dollars per million tokens written, those of reasoning included.
        units: US dollars per thousand units, where a service bills searches and no tokens.
    """

    input: float | None = None
    cached_input: float | None = None
    output: float | None = None
    units: float | None = None

    @classmethod
    def of(cls, table: Mapping[str, Mapping[str, Any]] | None, name: str | None, **own: float | None) -> Price:
        """The row of `table` for the model `name`, each column replaced by the stage's own price where it has one.

        Args:
            table: `prices` of the configuration: model -> columns of this class, and `source`.
            name: as the service calls the model.
            own: a price by its column; None takes that of the table.

        Raises:
            ConfigError: a price in the table is no number from 0, or the row has a column that is none.
        """
        row = (table or {}).get(name or "") or {}
        if not isinstance(row, Mapping):
            raise ConfigError(f"prices.{name}", f"found {row!r}; expected columns such as {{input: 1.0, output: 4.0}}")
        columns = [spec.name for spec in fields(cls)]
        for key, value in row.items():
            if key not in (*columns, "source"):
                raise ConfigError(f"prices.{name}", f"no column '{key}'; columns: {', '.join(columns)}, source")
            if key in columns:
                _check_usd(f"prices.{name}", value)
        kept = {key: value for key, value in own.items() if value is not None}
        return cls(**{key: value for key, value in {**row, **kept}.items() if key in columns})

    @property
    def known(self) -> bool:
        """Whether there is a price at all."""
        return any(getattr(self, spec.name) is not None for spec in fields(self))

    def usd(self, *, input: float = 0, cached: float = 0, output: float = 0, units: float = 0) -> float:  # noqa: A002
        """US dollars for so many tokens and units; nothing for what has no price.

        Args:
            input: tokens sent, those still held by the service included.
            cached: how many of them it still held.
            output: tokens written.
            units: units billed.
        """
        held = self.input if self.cached_input is None else self.cached_input
        tokens = (input - cached) * (self.input or 0.0) + cached * (held or 0.0) + output * (self.output or 0.0)
        return tokens / 1e6 + units * (self.units or 0.0) / 1e3


class Purse:
    """What one stage may spend for as long as it lives, whoever uses it. Safe to use from several threads.

    A stage that is built anew, as for each job of a sweep, has a purse of its own; closing and loading keeps it.

    Args:
        service: what messages call it.
        limit_usd: `max_usd`; None is no limit.
    """

    def __init__(self, service: str, limit_usd: float | None) -> None:
        check_usd(max_usd=limit_usd)
        self._service = service
        self._limit = limit_usd
        self._spent = 0.0
        self._lock = threading.Lock()

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._limit is not None

    @contextlib.contextmanager
    def reserved(self, usd: float) -> Iterator[Pay]:
        """Around one request: sets aside the most that it can cost, and keeps what it cost in the end.

        A request that ends without an answer keeps all that was set aside, since it may have been paid for; one that
        the service answered with an error, which is not billed, keeps nothing.

        Args:
            usd: the dearest that the request can become.

        Raises:
            PermanentError: it could cost more than is left; nothing is sent.
        """
        self._take(usd)
        spent = usd

        def pay(cost_usd: float) -> None:
            nonlocal spent
            spent = cost_usd

        try:
            yield pay
        except RemoteError as error:
            spent = spent if error.status is None else 0.0
            raise
        finally:
            with self._lock:
                self._spent += spent - usd

    def _take(self, usd: float) -> None:
        with self._lock:
            left = float("inf") if self._limit is None else self._limit - self._spent
            if usd <= left:
                self._spent += usd
                return
        found = (
            f"not asked: the request can cost ${usd:.4f}, and ${max(0.0, left):.4f} is left of max_usd=${self._limit:g}"
        )
        raise PermanentError(self._service, f"{found}. Raise max_usd, or send fewer or shorter documents")


def check_usd(**values: object) -> None:
    """Refuse what is no amount of money.

    Args:
        values: YAML key -> amount; None is none.

    Raises:
        ConfigError: a value is no number from 0.
    """
    for key, value in values.items():
        _check_usd(key, value)


def _check_usd(path: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
        raise ConfigError(path, f"found {value!r}; expected US dollars, from 0")
