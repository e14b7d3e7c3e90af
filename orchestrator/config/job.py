"""Questions to Hydra about the job that runs and the configurations there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def plain(node: object) -> Any:
    """A node as plain Python, its interpolations left as they stand."""
    return OmegaConf.to_container(node) if isinstance(node, DictConfig | ListConfig) else node


def yaml_text(data: Mapping[str, Any]) -> str:
    """`data` as YAML that a configuration reads as it is: what looks like a number and is a word stands in quotes."""
    return str(OmegaConf.to_yaml(OmegaConf.create(dict(data))))


def composed(words: Sequence[str]) -> dict[str, Any] | None:
    """What the configuration of a run would be, as plain values; None where `words` do not go together.

    Only while Hydra runs, or inside `Pipeline.compose`.
    """
    from hydra import compose
    from hydra.errors import HydraException

    try:
        return cast(dict[str, Any], plain(compose("config", overrides=list(words))))
    except (HydraException, OmegaConfBaseException):
        return None


def task_overrides() -> list[str]:
    """The overrides of the job that runs, as Hydra was given them; none outside of one."""
    from hydra.core.hydra_config import HydraConfig

    return [str(word) for word in HydraConfig.get().overrides.task] if HydraConfig.initialized() else []


def sweep_folder() -> Path:
    """The folder of the sweep whose job runs."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().sweep.dir)


def sweeper_direction() -> Any:
    """Where the sweeper of this job looks for better figures, as it was given; None where it says nothing of it."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    sweeper = HydraConfig.get().sweeper
    return plain(sweeper.direction) if "direction" in sweeper else None


def model_cards() -> dict[str, dict[str, Any]]:
    """Every card of the group `model`, of this package, of --config-dir and of other packages, by name.

    Only while Hydra runs, or inside `Pipeline.compose`.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    loader = GlobalHydra.instance().config_loader()
    cards = {}
    for name in loader.get_group_options("model", results_filter=ObjectType.CONFIG):
        loaded = loader.repository.load_config(f"model/{name}")  # type: ignore[attr-defined]
        cards[str(name)] = plain(loaded.config)
    return cards


def card_names(cards: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, str]:
    """Name of a model on the hub -> name of its card, of `cards`, or of all where Hydra runs."""
    cards = model_cards() if cards is None else cards
    # One model may have two cards, of which the one for its token vectors is not what the figures call it.
    first = sorted(cards, key=lambda name: (cards[name].get("role") != "multi_vector", name))
    return {str(cards[name]["name"]): name for name in first if cards[name].get("name")}
