"""Results as people and programs read them: JSON and TREC lines, tables, the tree of a trace, the way of documents."""

from orchestrator.report.calibration import calibration_report, throughput_chart
from orchestrator.report.decision import candidates_table, decision_json, need_line, reasons_table, rejected_table
from orchestrator.report.evaluation import (
    changes_table,
    comparisons_table,
    evaluation_table,
    language_table,
    legend_lines,
    work_lines,
)
from orchestrator.report.figures import evaluation_json
from orchestrator.report.lines import result_json, told_json, trace_json
from orchestrator.report.tables import (
    comparison_table,
    importances_table,
    result_table,
)
from orchestrator.report.terminal import console, plain_table
from orchestrator.report.trace_tree import TraceTree, trace_tree

__all__ = [
    "TraceTree",
    "calibration_report",
    "candidates_table",
    "changes_table",
    "comparison_table",
    "comparisons_table",
    "console",
    "decision_json",
    "evaluation_json",
    "evaluation_table",
    "importances_table",
    "language_table",
    "legend_lines",
    "need_line",
    "plain_table",
    "reasons_table",
    "rejected_table",
    "result_json",
    "result_table",
    "throughput_chart",
    "told_json",
    "trace_json",
    "trace_tree",
    "work_lines",
]
