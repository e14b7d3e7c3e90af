"""What a stage reads of long documents: a policy, declared beside the stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from orchestrator.checks import check_choice, check_counts_or_null
from orchestrator.errors import ConfigError

How = Literal["truncate", "head_tail", "title_lead", "windows"]
Aggregate = Literal["max", "mean", "first"]
Choose = Literal["matching", "first"]
LEAD_TOKENS = 128
"""As much of a document as Dai and Callan (SIGIR 2019, "Deeper Text Understanding for IR") give one passage, about."""
UNLIMITED_TOKENS = 512
"""Where neither the policy nor the stage sets a limit: what most rerankers behind a service read."""


@dataclass(frozen=True, slots=True)
class Passages:
    """What a stage reads of a document that is longer than it can read, or than it should.

    - `truncate`: the document goes to the stage whole, and the model cuts it its own way; nothing else here matters.
    - `head_tail`: the first and the last half of `size` tokens (Sun et al. 2019, "How to Fine-Tune BERT for Text
      Classification", section 5.3.1, where the tail was given more).
    - `title_lead`: the title and the first tokens of the body, `size` in all, 128 where no size is given.
    - `windows`: the title with each window of the body; a document's score is made of those of its windows (Dai and
      Callan 2019: MaxP, FirstP; the mean is Yang et al.'s).

    Attributes:
        how: one of the above.
        size: tokens of a passage, its title included; None is what fits beside the query, 512 for a stage that sets no
            limit.
        stride: how far a window begins behind the one before; None is three quarters of its length.
        aggregate: `max`, `mean` or `first`; with the last no other window is read.
        max_windows: most windows of one document; None is no limit.
        choose: which of more: those that hold the query's rarest words (`matching`), or the `first`.

    Raises:
        ConfigError: a value is out of range, or two do not go together.
    """

    how: How = "truncate"
    size: int | None = None
    stride: int | None = None
    aggregate: Aggregate = "max"
    max_windows: int | None = 8
    choose: Choose = "matching"

    def __post_init__(self) -> None:
        for name, kind in (("how", How), ("aggregate", Aggregate), ("choose", Choose)):
            check_choice(name, getattr(self, name), get_args(kind))
        check_counts_or_null(size=self.size, stride=self.stride, max_windows=self.max_windows)
        if self.cuts and None not in (self.size, self.stride) and cast(int, self.stride) > cast(int, self.size):
            raise ConfigError("stride", f"found {self.stride} with size={self.size}; what lies between would be lost")

    @property
    def cuts(self) -> bool:
        """Whether documents are cut before the stage sees them."""
        return self.how != "truncate"


WHOLE = Passages()
"""Documents go to the stage as they are."""
