"""Results as the JSON that contracts with scripts: Python's field names, values in bytes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from memplan.results import Estimate


def estimate_mapping(estimate: Estimate) -> dict[str, Any]:
    """The estimate as plain mappings, lists and numbers, in the order of the contract."""
    return {
        "schema": estimate.schema,
        "workload": dict(estimate.workload),
        "assumed": list(estimate.assumed),
        "peak_requested_bytes": estimate.peak_requested_bytes,
        "peak_allocated_bytes": estimate.peak_allocated_bytes,
        "peak_reserved_bytes": estimate.peak_reserved_bytes,
        "device_bytes": estimate.device_bytes,
        "peak": asdict(estimate.peak),
        "breakdown_at_peak": dict(estimate.breakdown_at_peak),
        "phases": {name: asdict(phase) for name, phase in estimate.phases.items()},
        "parameters": {
            "total": estimate.parameters.total,
            "trainable": estimate.parameters.trainable,
            "trainable_fraction": estimate.parameters.trainable_fraction,
        },
        "checkpoint_bytes": estimate.checkpoint_bytes,
        "trade_offs": None if estimate.trade_offs is None else asdict(estimate.trade_offs),
        "gpu": None if estimate.gpu is None else asdict(estimate.gpu),
        "evidence": {"level": estimate.evidence.level, "notes": list(estimate.evidence.notes)},
        "warnings": list(estimate.warnings),
    }


def render_json(value: Any) -> str:
    """Indented JSON text without a trailing newline."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
