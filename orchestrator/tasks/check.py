"""`orchestrate check`: look for mistakes in the configuration, without loading a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.config.job import card_names, plain
from orchestrator.corpora.corpus import corpus_key
from orchestrator.costs.cost import CostModel
from orchestrator.costs.lengths import Lengths
from orchestrator.costs.node_cost import NodeCosts, has_other_cards, reference_costs, shipped_cards
from orchestrator.costs.use import corpus_figures, measured_here
from orchestrator.errors import ConfigError
from orchestrator.lint import Finding, lint
from orchestrator.lint.gather import corpus_facts
from orchestrator.pipeline import Pipeline
from orchestrator.report import check_report
from orchestrator.tasks.flags import flag

if TYPE_CHECKING:
    from omegaconf import DictConfig

_STYLES = {"missing": "red", "warning": "yellow", "remark": "cyan"}


def run(cfg: DictConfig, output: Path | None) -> None:
    """Print the stages and every finding. A configuration that cannot run raises its error instead.

    Raises:
        ConfigError: `task.strict` is set, and there is a finding that is more than a remark.
    """
    if cfg.format.name == "trec":
        raise ConfigError("format", "found trec; check ranks no documents. Choices: table, json")
    strict = flag(cfg, "strict")
    pipeline = Pipeline.from_config(cfg)
    facts = pipeline.facts(_costs(cfg, pipeline))
    findings = lint(pipeline.graph, facts)
    if cfg.format.name == "json":
        found = check_report.check_json(pipeline.graph, facts, findings)
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    else:
        console = report.console()
        console.print(check_report.graph_table(pipeline.graph, facts))
        console.print(check_report.figures_line(facts), markup=False)
        for finding in findings:
            console.print(f"{finding.severity}: {finding}", style=_STYLES[finding.severity], markup=False)
        console.print(check_report.summary(findings), markup=False)
    if strict:
        _refuse(findings)


def _costs(cfg: DictConfig, pipeline: Pipeline) -> NodeCosts:
    """By what was measured on this machine, and the figures of `cfg.cost`, else the shipped ones, for the rest."""
    root, facts = pipeline.storage_root, corpus_facts(pipeline.corpus_spec, pipeline.storage_root)
    key = None if facts.problem else corpus_key(pipeline.corpus_spec)
    known = CostModel.of(plain(cfg.cost)) if cfg.cost is not None else reference_costs()
    cost = measured_here(known, root, key, facts.content_hash)
    own = corpus_figures(root, key, facts.content_hash) if key else None
    lengths = own.lengths if own else None
    if cfg.need.doc_tokens is not None:
        lengths = Lengths.even(cost.query_tokens, cfg.need.doc_tokens)
    # Reading every card takes half a second: only where the figures name one of somebody's own.
    cards = card_names() if has_other_cards(cost) else shipped_cards(cost)
    return NodeCosts(pipeline.graph, cost, cards, lengths)


def _refuse(findings: list[Finding]) -> None:
    counted = [finding for finding in findings if finding.severity != "remark"]
    if counted:
        others = f", and {len(counted) - 1} more" if len(counted) > 1 else ""
        raise ConfigError(counted[0].path, f"{counted[0].message}{others} (task.strict=true)")
