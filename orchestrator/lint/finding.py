"""What the lint says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["missing", "warning", "remark"]
"""How much a finding matters:

- `missing`: a run on this machine stops there: no key, no file, no library, nothing trained.
- `warning`: it runs, but hardly as its author means it.
- `remark`: worth knowing, and may well be meant.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark of the lint: the YAML path, and what was found, expected, and could be done."""

    path: str
    message: str
    severity: Severity = "warning"

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def lacks(module: str, extra: str) -> str:
    """That a module is needed and not installed, and how to install it."""
    return f"needs the module '{module}', which is not installed: pip install 'rerank-orchestrator[{extra}]'"
