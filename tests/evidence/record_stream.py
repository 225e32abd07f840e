"""Record streams of allocator events with torch's own counters after every event.

    python tests/evidence/record_stream.py --python PYTHON [NAME ...]
    python tests/evidence/record_stream.py --python PYTHON --fuzz 0:40

``PYTHON`` (or the environment's ``MEMPLAN_VIRTUAL_PYTHON``) is a command that runs a Python whose
torch has a CUDA device: the virtual GPU, or a real one. A stream is either random, or what a
training run (``measure.py``) asked of the allocator. Either way it is then played to torch as
``torch.empty`` and ``del`` in a process of its own, and ``memory_stats`` is read after each event:
blocks and segments in a record are torch's, never ours. ``--fuzz`` keeps nothing: it holds the
simulation against torch on new random streams and says where they part.

A record (``streams/NAME.json.gz``) holds ``events`` as the engine writes them, and for each event
how much ``allocated`` and ``reserved`` changed. ``flushes`` are the events before which the cache
was emptied, ``failures`` the allocations that found no room with torch's message. Of a training run
it also has ``phases``: where each ended, and its ``measure.COLUMNS`` as they were in that run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.evidence.record import device_environment, seed_range

Json = dict[str, Any]

STREAMS = Path(__file__).with_name("streams")
MIB = 1 << 20
TINY = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 3,
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 32000,
    "max_position_embeddings": 16384, "tie_word_embeddings": False,
}  # fmt: skip
WIDE = TINY | {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 2}


def workload(model: Json, **keys: Any) -> Json:
    """A workload of two steps on an A10G."""
    base = {"model": model, "loop": "plain", "gpu": "a10g", "steps": 2, "seq_len": 512}
    return base | keys


RUNS: dict[str, Json] = {
    "full": {"workload": workload(TINY, optimizer="adamw_foreach")},
    "lora": {"workload": workload(WIDE, method="lora", dropout=0.1, micro_batch_size=2)},
    "nf4": {"workload": workload(WIDE, method="lora", quantization="nf4-dq", seq_len=300)},
    "checkpointing": {
        "workload": workload(TINY, activation_checkpointing="reentrant", optimizer="sgd_momentum")
    },
    "amp": {"workload": workload(TINY, dtype="float32", autocast="float16", seq_len=333)},
    "out-of-memory": {"workload": workload(WIDE, micro_batch_size=8), "capacity_gib": 2.5},
    "retries": {"workload": workload(WIDE, seq_len=1000), "capacity_gib": 1.56},
    "expandable": {
        "workload": workload(WIDE, micro_batch_size=2),
        "conf": "expandable_segments:True",
        "capacity_gib": 1.48,
    },
    "max-split": {
        "workload": workload(WIDE, seq_len=1000),
        "conf": "max_split_size_mb:32",
        "capacity_gib": 1.48,
    },
    "roundup": {
        "workload": workload(TINY, seq_len=777),
        "conf": "roundup_power2_divisions:[4:2,16:8,>:4]",
    },
    "garbage-collection": {
        "workload": workload(WIDE, seq_len=700, method="lora", autocast="bfloat16"),
        "conf": "garbage_collection_threshold:0.3,per_process_memory_fraction:0.9",
        "capacity_gib": 1.5,
    },
}
"""Training runs: a workload, the value of PYTORCH_CUDA_ALLOC_CONF, the card's capacity."""
RANDOM: dict[str, Json] = {
    "random-plain": {"seed": 1, "length": 6000},
    "random-full-card": {"seed": 2, "length": 6000, "capacity_gib": 1.0},
    "random-expandable": {
        "seed": 3, "length": 6000, "capacity_gib": 1.0, "conf": "expandable_segments:True",
    },
    "random-options": {
        "seed": 4, "length": 6000, "capacity_gib": 1.2,
        "conf": "max_split_size_mb:40,max_non_split_rounding_mb:21,"
        "garbage_collection_threshold:0.6,per_process_memory_fraction:0.95,"
        "roundup_power2_divisions:[1:4,8:8,>:2]",
    },
}  # fmt: skip
CONFS = (
    "", "", "expandable_segments:True", "max_split_size_mb:20", "max_split_size_mb:50",
    "max_split_size_mb:64,max_non_split_rounding_mb:32", "roundup_power2_divisions:4",
    "roundup_power2_divisions:[1:8,4:0,32:2,>:16]", "large_segment_size_mb:33",
    "garbage_collection_threshold:0.6,per_process_memory_fraction:0.9",
    "garbage_collection_threshold:0.3,per_process_memory_fraction:0.7,max_split_size_mb:24",
    "per_process_memory_fraction:0.5", "expandable_segments:True,max_split_size_mb:32",
    "expandable_segments:True,per_process_memory_fraction:0.8,garbage_collection_threshold:0.5",
    "expandable_segments:True,large_segment_size_mb:33,roundup_power2_divisions:2",
    "large_segment_size_mb:12,max_split_size_mb:13",
)  # fmt: skip
"""Configurations that ``--fuzz`` goes through."""

EDGES = (512, 1024, MIB, 2 * MIB, 10 * MIB, 12 * MIB, 20 * MIB, 32 * MIB, 40 * MIB, 64 * MIB)


def random_size(rng: random.Random) -> int:
    """A size near an edge of the rules, of a handful that come back, or any. [bytes]"""
    kind = rng.random()
    if kind < 0.35:
        return max(1, rng.choice(EDGES) + rng.choice((-513, -512, -1, 0, 0, 1, 511, 512, 1024)))
    if kind < 0.6:
        return rng.choice((40, 8192, 131072, 786432, 3 * MIB, 8 * MIB, 17 * MIB, 45 * MIB))
    return int(2 ** rng.uniform(0, 26.5))


def random_stream(seed: int, length: int) -> tuple[list[int], list[int]]:
    """Events that fill and drain the card in waves, and where the cache is emptied."""
    rng = random.Random(seed)
    events: list[int] = []
    live: list[int] = []
    flushes = []
    target = 0
    while len(events) < length:
        if not events or rng.random() < 0.02:
            target = rng.choice((0, 5, 20, 60, 150))
        if rng.random() < 0.004:
            flushes.append(len(events))
        if live and rng.random() < (0.65 if len(live) > target else 0.35):
            place = rng.choice((-1, rng.randrange(len(live)), rng.randrange(len(live))))
            events.append(~live.pop(place))
        else:
            live.append(len(events))
            events.append(random_size(rng))
    return events, flushes


class Player:
    """Does to torch what a stream says, and reads its counters after each event."""

    def __init__(self) -> None:
        import torch

        torch.cuda.init()
        self.torch = torch
        self.tensors: dict[int, Any] = {}
        self.failures: list[Json] = []

    def counters(self) -> tuple[int, int]:
        """Allocated and reserved bytes. [bytes]"""
        stats = self.torch._C._cuda_memoryStats(0)
        return tuple(stats[k]["all"]["current"] for k in ("allocated_bytes", "reserved_bytes"))

    def take(self, number: int, event: int) -> None:
        """One event; a block that found no room is as if it had never been asked for."""
        if event < 0:
            self.tensors.pop(~event, None)
        elif event > 0:
            try:
                empty, byte = self.torch.empty, self.torch.uint8
                self.tensors[number] = empty(event, dtype=byte, device="cuda")
            except self.torch.OutOfMemoryError as error:
                self.failures.append({"event": number, "message": str(error).split(" If ")[0]})

    def play(self, stream: Json) -> Json:
        """How much the counters changed at each event, and the allocations that failed."""
        changes: Json = {"allocated": [], "reserved": []}
        flushes = set(stream["flushes"])
        before = self.counters()
        assert before == (0, 0), before
        for number, event in enumerate(stream["events"]):
            if number in flushes:
                self.torch.cuda.empty_cache()
            self.take(number, event)
            after = self.counters()
            for name, a, b in zip(changes, before, after, strict=True):
                changes[name].append(b - a)
            before = after
        failures, self.failures = self.failures, []
        self.tensors.clear()
        self.torch.cuda.empty_cache()
        return changes | {"failures": failures}


def device() -> Json:
    """The device and what is taken of it before any allocation."""
    import torch

    p = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    return {
        "device": {"name": p.name, "capability": f"{p.major}.{p.minor}"},
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda},
        "capacity_bytes": p.total_memory,
        "context_bytes": total - free,
    }


def play_lines() -> None:
    """Play each line of the input, a stream; one line of output for each."""
    player = Player()
    facts = device()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(player.play(json.loads(line)) | facts) + "\n")
        sys.stdout.flush()


def observe_lines() -> None:
    """Run the workload of the input; write what it asked of the allocator, and its phases."""
    import torch

    from tests.evidence import measure

    torch.cuda.init()
    memory = torch.cuda.memory
    memory._record_memory_history(max_entries=10_000_000, stacks="python", context=None)
    marks: list[tuple[int, str]] = []

    def trace() -> list[Json]:
        return [e for e in memory._snapshot()["device_traces"][0] if e["action"] in ACTIONS]

    def noting(function: Callable[..., Any], name: str | None) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            marks.append((len(trace()), name or args[1]))
            return function(*args)

        return wrapper

    measure.Phases.read = noting(measure.Phases.read, None)  # type: ignore[method-assign]
    torch.cuda.empty_cache = noting(torch.cuda.empty_cache, FLUSH)
    out = measure.measure(json.loads(sys.stdin.readline()))
    columns = [*out["phases"].values(), *(values for step in out["steps"] for values in step)]
    seen = as_stream(trace(), marks) | {"columns": columns, "versions": out["versions"]}
    sys.stdout.write(json.dumps(seen) + "\n")


ACTIONS = ("alloc", "free_completed", "oom")
FLUSH = "empty_cache"


def as_stream(trace: list[Json], marks: list[tuple[int, str]]) -> Json:
    """Events in the engine's form, up to where memory ran out."""
    events: list[int] = []
    number: dict[int, int] = {}
    for entry in trace:
        if entry["action"] == "free_completed":
            events.append(~number[entry["addr"]])
            continue
        events.append(entry["size"])
        if entry["action"] == "oom":
            break
        number[entry["addr"]] = len(events) - 1
    kept = [(place, name) for place, name in marks if place <= len(events)]
    return {
        "events": events,
        "flushes": [place for place, name in kept if name == FLUSH],
        "ends": [(place, name) for place, name in kept if name != FLUSH],
    }


def run(python: str, role: str, environment: Json, lines: Iterable[str]) -> Iterator[Json]:
    """Lines of output of this file, run by another Python in one of its inner roles."""
    command = [*python.split(), str(Path(__file__).resolve()), role]
    done = subprocess.run(
        command,
        env=os.environ | environment,
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def environment_of(spec: Json) -> dict[str, str]:
    """The card's capacity and the allocator's options."""
    keys = {k: spec[k] for k in ("capacity_gib",) if k in spec}
    record = {"workload": spec.get("workload", {"gpu": "a10g"})} | keys
    environment = device_environment(record)
    if spec.get("conf"):
        environment["PYTORCH_CUDA_ALLOC_CONF"] = spec["conf"]
    return environment


def recorded(name: str, spec: Json, python: str, label: str) -> Json:
    """A record: the stream, and torch's counters after each of its events."""
    environment = environment_of(spec)
    record: Json = {"name": name, "label": label, "conf": spec.get("conf", "")}
    if "workload" in spec:
        (seen,) = run(python, "observe", environment, [json.dumps(spec["workload"])])
        record["workload"] = spec["workload"]
        ends = zip(seen["ends"], seen["columns"], strict=False)  # a step cut short has no columns
        record["phases"] = [[place, phase, values] for (place, phase), values in ends]
        libraries = seen["versions"]
    else:
        events, flushes = random_stream(spec["seed"], spec["length"])
        seen = {"events": events, "flushes": flushes}
        record["seed"] = spec["seed"]
        libraries = {}
    stream = {"events": seen["events"], "flushes": seen["flushes"]}
    (played,) = run(python, "play", environment, [json.dumps(stream)])
    played["versions"] = libraries | played["versions"]
    return record | stream | played


def write_record(record: Json) -> Path:
    """Write a record, the same bytes each time; where it lies."""
    STREAMS.mkdir(exist_ok=True)
    path = STREAMS / f"{record['name']}.json.gz"
    text = json.dumps(record, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path


def fuzz(seeds: range, python: str) -> None:
    """Hold the simulation against torch on new random streams, on cards of several sizes."""
    from tests.allocator.streams import first_difference

    for seed in seeds:
        conf = CONFS[seed % len(CONFS)]
        spec: Json = {"conf": conf, "capacity_gib": (0.75, 1.0, 1.5, 22.0)[seed // len(CONFS) % 4]}
        streams = [random_stream(seed * 100 + i, 3000) for i in range(4)]
        lines = [json.dumps({"events": e, "flushes": f}) for e, f in streams]
        played = run(python, "play", environment_of(spec), lines)
        for (events, flushes), result in zip(streams, played, strict=True):
            record = {"events": events, "flushes": flushes, "conf": conf} | result
            difference = first_difference(record)
            text = difference or f"equal, {len(result['failures'])} without room"
            sys.stdout.write(f"{seed} {spec['capacity_gib']} {conf or 'plain'}: {text}\n")
            sys.stdout.flush()


def main() -> None:
    """Record the streams that are named, or all."""
    roles = {"play": play_lines, "observe": observe_lines}
    if sys.argv[1:2] and sys.argv[1] in roles:
        roles[sys.argv[1]]()
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument(
        "--python", default=os.environ.get("MEMPLAN_VIRTUAL_PYTHON", sys.executable)
    )
    parser.add_argument("--label", default="virtual", help="what torch runs on")
    parser.add_argument("--fuzz", type=seed_range, metavar="FIRST:END")
    options = parser.parse_args()
    if options.fuzz:
        fuzz(options.fuzz, options.python)
        return
    known = RUNS | RANDOM
    for name in options.names or known:
        record = recorded(name, known[name], options.python, options.label)
        path = write_record(record)
        sys.stdout.write(
            f"{name}: {len(record['events'])} events, {len(record['failures'])} without room, "
            f"{path.stat().st_size} bytes\n"
        )


if __name__ == "__main__":
    main()
