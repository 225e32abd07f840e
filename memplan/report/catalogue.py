"""What names there are: models, methods and GPUs, as rows for programs and tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from memplan.combinations import METHOD_KEYS
from memplan.hardware import device_names, load_device
from memplan.method_table import FAMILIES, ROWS, Method
from memplan.models.config import load_model_config
from memplan.models.presets import preset_aliases, preset_names, preset_record
from memplan.report.numbers import format_count, format_gib, format_size
from memplan.report.style import plain_table

Rows = Sequence[Mapping[str, Any]]
SIZES = ("num_hidden_layers", "hidden_size", "vocab_size")


def model_rows() -> list[dict[str, Any]]:
    """Every preset, smallest first."""
    rows = [_model_row(name) for name in preset_names()]
    return sorted(rows, key=lambda row: (row["num_parameters"], row["name"]))


def _model_row(name: str) -> dict[str, Any]:
    config, names = load_model_config(name), preset_aliases()
    return {
        "name": name,
        "aliases": sorted(a for a, preset in names.items() if preset == name and a != name),
        "model_type": config.model_type,
        "num_parameters": config.num_parameters,
        **{key: getattr(config, key) for key in SIZES},
        "repo": preset_record(name).get("_repo", ""),
    }


def models_table(rows: Rows) -> Table:
    """The presets as a table."""
    table = plain_table("name", "aliases", "type", "parameters", "layers", "hidden", left=3)
    for row in rows:
        short = [alias for alias in row["aliases"] if "/" not in alias]
        numbers = (str(row[key]) for key in SIZES[:2])
        count = format_count(row["num_parameters"])
        table.add_row(row["name"], ", ".join(short), row["model_type"], count, *numbers)
    return table


def method_rows() -> list[dict[str, Any]]:
    """Every method, family by family, with the workload keys that only some methods take."""
    return [
        {
            "name": row.name,
            "family": row.family,
            "about": row.about,
            "paper": row.paper,
            "merges": row.merges,
            "engine": engine_of(row),
            "keys": [key for key, methods in METHOD_KEYS.items() if row.name in methods],
        }
        for row in sorted(ROWS, key=lambda row: FAMILIES.index(row.family))
    ]


def engine_of(row: Method) -> str:
    """Which engine runs a method: ``bytes``, ``virtual``, or none yet."""
    if row.modelled:
        return "bytes"
    return "virtual" if row.of_peft else "none yet"


def methods_table(rows: Rows) -> Table:
    """The methods as a table, each family under its heading."""
    table = plain_table("name", "what trains", "paper", "engine", left=4)
    family = ""
    for row in rows:
        if row["family"] != family:
            family = row["family"]
            table.add_row(Text(family, style="bold"))
        table.add_row(*(row[key] for key in ("name", "about", "paper", "engine")))
    return table


def gpu_rows() -> list[dict[str, Any]]:
    """Every card of the catalogue, with the source of its figures."""
    devices = [load_device(name) for name in device_names()]
    return [
        {
            "name": device.name,
            "title": device.title,
            "aliases": list(device.aliases),
            "compute_capability": list(device.compute_capability),
            "capacity_bytes": device.capacity_bytes,
            "context_bytes": device.context_bytes,
            "source": device.source,
            "context_source": device.context_source,
        }
        for device in devices
    ]


def gpus_table(rows: Rows) -> Table:
    """The cards as a table."""
    table = plain_table("name", "title", "sm", "GiB", "context", left=2)
    for row in rows:
        capability = ".".join(map(str, row["compute_capability"]))
        capacity, context = format_gib(row["capacity_bytes"]), format_size(row["context_bytes"])
        table.add_row(row["name"], row["title"], capability, capacity, context)
    return table
