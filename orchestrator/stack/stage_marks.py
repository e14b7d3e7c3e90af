"""What tells one stage from another in a configuration, whatever its name: settings, models, and the stages it reads.

Two stages of the same mark rank alike on the same documents. How many candidates each passes on is left out: one of the
same mark may have read more of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from orchestrator.storage import stable_hash

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_NO_MATTER = frozenset({"threads", "batch_tokens", "backend", "device", "storage_root", "prices", "api_key"})
"""Arguments that change how fast a stage is, or what it costs, and not how it ranks."""
_GATES = ("passages", "when", "cut")


def stage_marks(
    config: Mapping[str, Any],
    inputs: Mapping[str, tuple[str, ...]],
    models: Mapping[str, str] | None = None,
    classes: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Stage -> its mark.

    Args:
        config: a composed configuration as plain values, interpolations left as they stand.
        inputs: stage -> the stages it reads, each before those that read it.
        models: slot under `models` -> what to call the model in it; None takes the one that stands there.
        classes: stage -> name of the class that was built, where a configuration leaves the choice to the machine.
    """
    labels = model_labels(config) | dict(models or {})
    stages = config["pipeline"]["stages"]
    marks: dict[str, str] = {}
    for name, read in inputs.items():
        stage = stages[name]
        use = _chosen(stage["use"], (classes or {}).get(name))
        gates = {key: _plain(stage.get(key), config, labels) for key in _GATES}
        parts = [_plain(use, config, labels), gates, [marks[each] for each in read]]
        marks[name] = stable_hash(parts)
    return marks


def model_labels(config: Mapping[str, Any]) -> dict[str, str]:
    """Slot under `models` -> what tells its model from others: a folder, or its name on the hub and the revision."""
    return {str(slot): model_label(card) for slot, card in config["models"].items() if isinstance(card, Mapping)}


def model_label(card: Mapping[str, Any]) -> str:
    """Of one card."""
    name = card.get("path") or card.get("name") or card.get("_target_")
    return f"{name}@{card['revision']}" if card.get("revision") else str(name)


def _chosen(use: Any, built: str | None) -> Any:
    """Of a stage that takes the first of some choices that this machine has, the one that it took."""
    if not isinstance(use, Mapping) or "choices" not in use:
        return use
    found = [one for one in use["choices"].values() if built and str(one.get("_target_")).endswith(f".{built}")]
    return found[0] if found else use


def _plain(value: Any, config: Mapping[str, Any], labels: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        items = ((str(key), child) for key, child in value.items() if key not in _NO_MATTER)
        return {key: _plain(child, config, labels) for key, child in items}
    if isinstance(value, list | tuple):
        return [_plain(child, config, labels) for child in value]
    if isinstance(value, Enum):
        return value.name
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return value if found is None else _referred(found[1], value, config, labels)


def _referred(key: str, as_written: str, config: Mapping[str, Any], labels: Mapping[str, str]) -> Any:
    root, _, rest = key.partition(".")
    if root == "models" and rest in labels:
        return labels[rest]
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return as_written if node is None or isinstance(node, Mapping) else _plain(node, config, labels)
