"""A comparison for programs: JSON and CSV, in bytes and with Python's field names."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import Any

from memplan.planner.compare import Comparison, Row
from memplan.report.json import estimate_mapping

SCHEMA = "memplan.compare/1"


def comparison_mapping(comparison: Comparison) -> dict[str, Any]:
    """The comparison for JSON: each row has its case, ``refused``, and the estimate's own keys."""
    rows = [
        {
            **asdict(row.case),
            "refused": None,
            "smallest_gpu": row.smallest_gpu,
            **estimate_mapping(row.estimate),
        }
        for row in comparison.rows
    ]
    refused = [{**asdict(item.case), "refused": item.reason} for item in comparison.refused]
    return {"schema": SCHEMA, "rows": [*rows, *refused]}


def comparison_csv(comparison: Comparison) -> str:
    """The comparison as CSV with a head line; refused combinations come last."""
    records = [{**asdict(row.case), **_figures(row), "refused": ""} for row in comparison.rows]
    records += [{**asdict(item.case), "refused": item.reason} for item in comparison.refused]
    text = io.StringIO()
    columns = max((list(record) for record in records), key=len)
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _figures(row: Row) -> dict[str, Any]:
    """The numbers of one row, flat."""
    estimate, gpu = row.estimate, row.estimate.gpu
    return {
        "total_parameters": estimate.parameters.total,
        "trainable_parameters": estimate.parameters.trainable,
        "peak_requested_bytes": estimate.peak_requested_bytes,
        "peak_allocated_bytes": estimate.peak_allocated_bytes,
        "peak_reserved_bytes": estimate.peak_reserved_bytes,
        "device_bytes": estimate.device_bytes,
        **{f"peak_{key}": value for key, value in asdict(estimate.peak).items()},
        "checkpoint_bytes": estimate.checkpoint_bytes,
        **(asdict(estimate.trade_offs) if estimate.trade_offs else {}),
        "smallest_gpu": row.smallest_gpu or "",
        "gpu": "" if gpu is None else gpu.name,
        "fits": "" if gpu is None else str(gpu.fits).lower(),
        "headroom_bytes": "" if gpu is None else gpu.headroom_bytes,
    }
