r"""Draw random workloads, measure them, append one JSON line a run.

    python tests/evidence/record.py --seeds 0:250 --out tests/evidence/parity.jsonl --python PYTHON

``PYTHON`` (or the environment's ``MEMPLAN_VIRTUAL_PYTHON``) is a command that runs a Python whose
torch has a CUDA device: the virtual GPU. What the environment must say so that this device is the
workload's GPU is in ``device_environment``. A line holds the workload, the three peaks, every
phase's ``measure.COLUMNS``, parameter counts, the device and the versions; ``label`` says what it
was measured on.

    python tests/evidence/record.py --seeds 0:60 --out tests/evidence/verdicts.jsonl \
        --cards-for tests/evidence/parity.jsonl --python PYTHON

measures recorded workloads again on cards that they just fit, or just do not; with ``--presets``,
and a capacity that nothing fills, every preset once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from memplan.models.presets import load_preset, preset_names
from tests.evidence.workloads import draw, draw_card, draw_for_preset

Json = dict[str, Any]

MEASURE = Path(__file__).with_name("measure.py")
VIRTUAL_GPUS = {
    "a100-40gb": "a100-40", "a100-80gb": "a100-80", "h100-80gb": "h100", "h200": "h200",
    "a10g": "a10g", "l4": "l4", "l40s": "l40s", "rtx-3090": "rtx3090", "rtx-4090": "rtx4090",
}  # fmt: skip
CONTEXT_MIB = 450
SHARED = ("label", "versions")


def device_environment(record: Json) -> dict[str, str]:
    """Environment of the virtual GPU for a workload, its capacity and its context.

    A padding mask must look like one: transformers reads a flag from the device, which no kernel
    has written. The order of parameters in a checkpoint that a thread pool loads is chance; one
    thread takes them by name.
    """
    w = record["workload"]
    environment = {
        "STANDIN_GPU": VIRTUAL_GPUS[w["gpu"]],
        "STANDIN_CTX_MIB": str(record.get("context_mib", CONTEXT_MIB)),
        "HF_HUB_OFFLINE": "1",
        "HF_DEACTIVATE_ASYNC_LOAD": "1",
    }
    if "capacity_gib" in record:
        environment["STANDIN_MEM_GIB"] = str(record["capacity_gib"])
    if w.get("attention_mask") == "padding":
        environment["STANDIN_BOOL"] = "0"
    return environment


def measured(records: Iterable[Json], python: str, events: Path | None = None) -> Iterator[Json]:
    """The records with what was measured; runs of one environment share their imports."""
    for environment, group in groupby(records, key=device_environment):
        batch = list(group)
        text = "".join(json.dumps(with_config(record["workload"])) + "\n" for record in batch)
        command = [*python.split(), str(MEASURE), *(["--events", str(events)] if events else [])]
        with subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(text)
            process.stdin.close()
            for record, line in zip(batch, process.stdout, strict=False):
                yield record | {"label": "virtual"} | json.loads(line)


def with_config(workload: Json) -> Json:
    """The workload with the keys of its model, if it only names it."""
    if isinstance(workload["model"], str):
        return workload | {"model": load_preset(workload["model"])}
    return workload


def of_presets(extra: Json) -> list[Json]:
    """A record to measure for each preset."""
    names = enumerate(preset_names())
    return [{"name": n, "workload": draw_for_preset(i, n)} | extra for i, n in names]


def drawn(seeds: range, extra: Json) -> list[Json]:
    """Records to measure, those of one environment together."""
    records: list[Json] = [{"name": f"s{seed}", "workload": draw(seed)} | extra for seed in seeds]
    return sorted(records, key=lambda record: sorted(device_environment(record).items()))


def recut(seeds: range, recorded: list[Json]) -> list[Json]:
    """Recorded workloads, each on a card cut to its peaks, loading included."""
    complete = [record for record in recorded if record["error"] is None]
    records = []
    for seed in seeds:
        base = random.Random(f"base {seed}").choice(complete)
        phases = [*base["phases"].values(), *(p for step in base["steps"] for p in step)]
        allocated, reserved = (max(p[i] for p in phases) for i in (1, 2))
        card = draw_card(seed, allocated, reserved)
        name = {"name": f"v{seed}-{base['name']}", "workload": base["workload"]}
        records.append(name | card)
    return records


def read_records(path: Path) -> list[Json]:
    """The records of a file, or none."""
    return parse_records(path)[0]


def parse_records(path: Path) -> tuple[list[Json], Json]:
    """Records, each with the shared facts above it, and the last such facts."""
    records: list[Json] = []
    shared: Json = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        values = json.loads(line)
        if "name" in values:
            records.append(shared | values)
        else:
            shared = values
    return records, shared


def append_records(path: Path, records: Iterable[Json]) -> None:
    """Write records as they come."""
    _, shared = parse_records(path)
    with path.open("a") as file:
        for record in records:
            sys.stdout.write(f"{record['name']} {record['error'] or record['peak']}\n")
            sys.stdout.flush()
            if "versions" not in record:  # it crashed
                continue
            facts = {key: record.pop(key) for key in SHARED}
            lines = [record] if facts == shared else [facts, record]
            file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
            file.flush()
            shared = facts


def seed_range(text: str) -> range:
    """``3:9`` or ``3``."""
    first, _, end = text.partition(":")
    return range(int(first), int(end) if end else int(first) + 1)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", type=seed_range, help="FIRST:END")
    what.add_argument("--presets", action="store_true", help="every preset, in place of seeds")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--python", default=os.environ.get("MEMPLAN_VIRTUAL_PYTHON", sys.executable)
    )
    parser.add_argument("--cards-for", type=Path, help="records to measure on cards cut to them")
    parser.add_argument("--capacity-gib", type=float, help="capacity of the card, for verdicts")
    parser.add_argument("--context-mib", type=int, default=CONTEXT_MIB)
    return parser.parse_args()


def main() -> None:
    """Measure what is not in the file yet."""
    options = arguments()
    extra: Json = {}
    if options.capacity_gib is not None:
        extra = {"capacity_gib": options.capacity_gib, "context_mib": options.context_mib}
    known = {record["name"] for record in read_records(options.out)}
    if options.presets:
        records = of_presets(extra)
    elif options.cards_for:
        records = recut(options.seeds, read_records(options.cards_for))
    else:
        records = drawn(options.seeds, extra)
    records = [record for record in records if record["name"] not in known]
    append_records(options.out, measured(records, options.python))


if __name__ == "__main__":
    main()
