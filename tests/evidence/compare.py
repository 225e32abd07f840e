"""Hold memplan against recorded runs, and show where the two streams of events part.

    python tests/evidence/compare.py --all tests/evidence/*.jsonl               # a summary
    python tests/evidence/compare.py --name s17 --python PYTHON                 # a recorded one
    python tests/evidence/compare.py --seed 917 --python PYTHON                 # a new one

The last two run the workload again with every event of the allocator kept (``PYTHON`` as in
``record.py``) and print, for loading, adapting and training, the events around the first that
differs: what the real run knows of the block (phase, C++ functions, Python lines) stands beside it.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from memplan.errors import MemplanError
from tests.evidence.agreement import differences, own_events, run_of
from tests.evidence.events import Event, Raw, named, partings
from tests.evidence.record import measured, read_records
from tests.evidence.workloads import draw

Json = dict[str, Any]
HERE = Path(__file__).parent


def write(line: str) -> None:
    """One line to the terminal."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def features(record: Json) -> Iterator[str]:
    """What a record's workload uses, to count by."""
    w = record["workload"]
    model = w["model"]
    if isinstance(model, str):
        yield "presets"
        return
    yield model["model_type"]
    yield f"dtype {w.get('dtype', 'bfloat16')} autocast {w.get('autocast', 'none')}"
    names = ("method", "quantization", "optimizer", "attention", "attention_mask", "gpu")
    for name in (*names, "activation_checkpointing", "bias", "adapter_dtype"):
        if name in w:
            yield f"{name} {w[name]}"
    for name in ("modules_to_save", "keep_outputs", "use_cache"):
        if w.get(name):
            yield name
    for name in ("attention_bias", "mlp_bias", "tie_word_embeddings", "sliding_window"):
        if model.get(name):
            yield name


def outcome(record: Json) -> str:
    """``exact``, or what is off, or why memplan has no number."""
    refused = (record["error"] or "").startswith("refused")
    try:
        off = off_of(record)
    except MemplanError as error:
        if refused:
            return "exact"
        return f"memplan refuses: {' '.join(str(error).split())[:110]}"
    except Exception as error:
        return f"memplan fails: {type(error).__name__}: {error}"[:110]
    more = f" and {len(off) - 4} more" if len(off) > 4 else ""
    return f"off: {', '.join(off[:4])}{more}" if off else "exact"


def off_of(record: Json) -> list[str]:
    """What memplan says otherwise: numbers, or whether the run gets through."""
    if record["error"] in (None, "out of memory"):
        return differences(record)
    run_of(record).record()
    return [f"does not refuse what the libraries do: {record['error']}"]


def summary(records: list[Json]) -> None:
    """A line for each record that is off, then exact and all by feature."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    exact = 0
    for record in records:
        result = outcome(record)
        exact += result == "exact"
        for feature in features(record):
            counts[feature][0] += result == "exact"
            counts[feature][1] += 1
        if result != "exact":
            known = f" (known: {record['known_off']})" if "known_off" in record else ""
            write(f"{record['name']}: {result}{known}")
    for feature, (good, total) in sorted(counts.items()):
        write(f"{feature:44} {good:4} exact of {total:4}")
    write(f"{exact} exact of {len(records)}")


def real_events(record: Json, python: str) -> tuple[Json, list[Event]]:
    """The workload measured again with its events."""
    with tempfile.TemporaryDirectory() as folder:
        result = next(measured([record], python, Path(folder)))
        raw = pickle.loads((Path(folder) / "0.pkl").read_bytes())
    kinds = {"alloc": False, "free_completed": True}
    events = [
        Raw(kinds[action], address, nbytes, phase, origin)
        for action, address, nbytes, phase, origin in raw
        if action in kinds
    ]
    return result, list(named(events))


def show(record: Json, python: str, context: int) -> None:
    """One workload: its numbers, and where the streams part."""
    result, real = real_events(record, python)
    write(f"{record['name']}: {record['workload']}")
    write(f"real: {result['error'] or result['peak']}")
    write(outcome(result))
    started = time.perf_counter()
    ours = list(named(own_events(result)))
    write(f"memplan: {len(ours)} events in {time.perf_counter() - started:.2f} s")
    for line in partings(real, ours, context):
        write(line)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", type=Path, nargs="+", help="summary of recorded files")
    which.add_argument("--seed", type=int, nargs="+")
    which.add_argument("--name", nargs="+", help="records by name")
    parser.add_argument(
        "--python", default=os.environ.get("MEMPLAN_VIRTUAL_PYTHON", sys.executable)
    )
    parser.add_argument("--context", type=int, default=6, help="events shown before and after")
    return parser.parse_args()


def main() -> None:
    """Compare what was asked for."""
    options = arguments()
    if options.all:
        summary([record for path in options.all for record in read_records(path)])
    elif options.seed:
        for seed in options.seed:
            show({"name": f"s{seed}", "workload": draw(seed)}, options.python, options.context)
    else:
        recorded = (r for path in sorted(HERE.glob("*.jsonl")) for r in read_records(path))
        for record in recorded:
            if record["name"] in options.name:
                show(record, options.python, options.context)


if __name__ == "__main__":
    main()
