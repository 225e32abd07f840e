"""What others measured and published: records with their sources, shipped with memplan.

Nothing in ``published/`` was measured by memplan's authors. A record keeps everything that was
collected about a run, and what is asked of it often is put into fields. Whether memplan can say
anything about a record is decided here, in the order of ``OBSTACLES``: the first that applies is
the reason that a report gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from memplan.coverage import why_not_modelled
from memplan.errors import ConfigError
from memplan.evidence.metamath import Case, case_of, method_of
from memplan.method_table import BY_NAME
from memplan.models.presets import preset_names
from memplan.workload import Workload

FOLDER = Path(__file__).parent / "published"
METAMATH = "peft-mm-"
RENAMED = {"tiny-llama-1.1b": "tinyllama-1.1b"}


@dataclass(frozen=True, slots=True)
class Record:
    """One published run or table cell.

    Attributes:
        id: Its name.
        source: Repository, path and commit, or a link.
        grade: ``A``: all settings come from files or commands; ``B``: one or two were assumed;
            ``C``: a sanity band only.
        suspect: Whether the value contradicts its own configuration.
        num_gpus: Devices that the run used.
        gpu: The card, in the source's words.
        metric: What was measured.
        phase: When.
        measured_bytes: The value, or nothing where a verdict was published. [bytes]
        halfwidth_bytes: How far rounding can have moved it. [bytes]
        value: As published.
        unit: As published.
        model: The checkpoint.
        method: What trained.
        date: When it ran or was written down.
        versions: Library versions, as far as they are stated.
        data: Everything, as collected.
    """

    id: str
    source: Mapping[str, str]
    grade: str
    suspect: bool
    num_gpus: int
    gpu: str
    metric: str
    phase: str
    measured_bytes: int | None
    halfwidth_bytes: int
    value: str
    unit: str
    model: str
    method: str
    date: str
    versions: Mapping[str, str]
    data: Mapping[str, Any]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Record:
        """A record of what a file holds."""
        return cls(
            id=row["id"],
            source=row["source"],
            grade=row["config_completeness"],
            suspect=row["suspect"],
            num_gpus=row["n_gpus"],
            gpu=row.get("gpu", ""),
            metric=row["metric"],
            phase=row.get("phase", ""),
            measured_bytes=row.get("value_bytes"),
            halfwidth_bytes=int(row.get("rounding_halfwidth_bytes", 0)),
            value=str(row.get("value_published", "")),
            unit=str(row.get("unit_published", "")),
            model=row["model_id"],
            method=row["method"],
            date=row.get("date", ""),
            versions=row.get("software", {}),
            data=row,
        )

    @property
    def place(self) -> str:
        """Where it was published, without the path."""
        return self.source.get("repo") or self.source["url"]

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the collectors had to assume."""
        return tuple(self.data.get("assumptions", ()))

    @property
    def preset(self) -> str | None:
        """The preset of the same sizes."""
        return PRESETS.get(Path(self.data.get("model_config", "")).stem)


@dataclass(frozen=True, slots=True)
class NotCovered:
    """Why memplan says nothing about a record yet: a kind of obstacle, then which."""

    reason: str


PRESETS = {name: name for name in preset_names()} | RENAMED
"""Preset by the name of the config file that the collection gives a model."""


@lru_cache(maxsize=1)
def load_records() -> tuple[Record, ...]:
    """Every record, file by file."""
    return tuple(
        Record.of(json.loads(line))
        for file in sorted(FOLDER.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    )


def workload_of(record: Record) -> Case | NotCovered:
    """What to estimate for a record, or why not."""
    for obstacle in OBSTACLES:
        reason = obstacle(record)
        if reason:
            return NotCovered(reason)
    case = case_of(record.data)
    try:
        why = why_not_modelled(Workload(**case.keys))
    except ConfigError as error:
        why = str(error)
    return case if why is None else NotCovered(f"options: {why}")


def _gpus(record: Record) -> str | None:
    return "several GPUs" if record.num_gpus > 1 else None


def _phase(record: Record) -> str | None:
    return "phase: inference, not training" if record.phase == "inference" else None


def _library(record: Record) -> str | None:
    return next((word for start, word in LIBRARIES if record.id.startswith(start)), None)


def _model(record: Record) -> str | None:
    return None if record.preset else f"model: {record.model}"


def _method(record: Record) -> str | None:
    row = BY_NAME.get(method_of(record.method))
    return None if row is not None and row.modelled else f"method: {record.method}"


def _metric(record: Record) -> str | None:
    return None if record.metric in METRICS else f"metric: {record.metric}"


def _inputs(record: Record) -> str | None:
    return None if record.id.startswith(METAMATH) else "inputs: the longest batch is not published"


OBSTACLES: tuple[Callable[[Record], str | None], ...] = (
    _gpus,
    _phase,
    _library,
    _model,
    _method,
    _metric,
    _inputs,
)
LIBRARIES = (
    ("litgpt-", "library: litgpt"),
    ("torchtune-", "library: torchtune"),
    ("titan-", "library: torchtitan"),
    ("ao-", "library: torchao"),
    ("swift-", "library: ms-swift"),
    ("qwen1-", "library: Qwen"),
    ("unsloth-", "library: unsloth"),
    ("axolotl-", "library: axolotl"),
    ("badam-", "method: BAdam"),
    ("chatglm6b-", "model: THUDM/ChatGLM-6B"),
)
"""Rows whose code is not transformers' own, by the start of their ids.

litgpt, torchtune and torchtitan have their own models; torchao's rows run in torchtune's loop;
ms-swift's and Qwen's run remote code in a Trainer; axolotl and unsloth bring kernels of their own.
"""
METRICS = (
    "max_memory_reserved",
    "max_memory_allocated",
    "memory_allocated_end_of_step_avg",
    "fits",
    "oom",
)
