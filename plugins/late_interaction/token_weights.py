"""How much each token of a query counts in late interaction: all alike, or by how rare it is in the corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.checks import check_choice
from orchestrator.errors import IndexStateError
from orchestrator.stage import EmbedTokens
from orchestrator.storage import write_atomic
from orchestrator.types import Call, TokenVectors, Vectors

from .maxsim import idf

Weights = Literal["auto", "idf", "equal"]

_FREQUENCIES = "frequencies.npy"
_FACTS = "facts.json"


class TokenWeights:
    """Weights of a query's tokens.

    Args:
        chosen: `idf`, `equal`, or `auto`: `equal` for encoders that fill queries up with mask tokens, else `idf`.
        encoder: whose tokens they are.

    Raises:
        ConfigError: no such choice.
    """

    def __init__(self, chosen: Weights, encoder: EmbedTokens) -> None:
        check_choice("query_weights", chosen, get_args(Weights))
        self._chosen, self._encoder = chosen, encoder
        self._idf: Vectors | None = None
        self._unseen = 0.0

    @property
    def kind(self) -> Weights:
        """`idf` or `equal`. Known once the encoder is loaded."""
        if self._chosen != "auto":
            return self._chosen
        return "equal" if getattr(self._encoder, "fills_queries", False) else "idf"

    @staticmethod
    def write(directory: Path, frequencies: npt.NDArray[np.int64], n_documents: int) -> None:
        """Keep how many documents of the corpus hold each token in `directory`."""
        np.save(directory / _FREQUENCIES, frequencies, allow_pickle=False)
        write_atomic(directory / _FACTS, json.dumps({"n_documents": n_documents}))

    def read(self, directory: Path) -> None:
        """Weigh by the frequencies in `directory` from now on.

        Raises:
            IndexStateError: files are missing or damaged.
        """
        try:
            frequencies = np.load(directory / _FREQUENCIES, allow_pickle=False)
            n_documents = int(json.loads((directory / _FACTS).read_text())["n_documents"])
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise IndexStateError(f"{directory}: {error}") from error
        self._idf = idf(frequencies, n_documents)
        self._unseen = float(idf(np.zeros(1, dtype=np.int64), n_documents)[0])

    def forget(self) -> None:
        """Weigh by no corpus any more."""
        self._idf = None

    def of(self, query: TokenVectors, call: Call) -> Vectors:
        """float32 [n_query_tokens], above 0."""
        if self.kind == "equal":
            return np.ones(len(query.token_ids), dtype=np.float32)
        if self._idf is None:
            call.note("tokens of the query weighed alike: no index of the corpus tells how rare they are")
            return np.ones(len(query.token_ids), dtype=np.float32)
        weights = np.full(len(query.token_ids), self._unseen, dtype=np.float32)
        known = query.token_ids < len(self._idf)
        weights[known] = self._idf[query.token_ids[known]]
        return weights
