"""Write the published measurements that memplan ships, from the folder they were collected in.

``python tests/evidence/convert_published.py FOLDER`` reads ``FOLDER/measurements.jsonl`` and writes
``memplan/evidence/published/*.jsonl``, one file a source. No row and no value is dropped; keys
without a value are, and spaces. It also checks the presets against ``FOLDER/configs``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memplan.evidence.published import FOLDER, PRESETS
from memplan.models.config import load_model_config

MAX_FILE_BYTES = 500_000
FILES = {  # file by what the ids of its rows begin with, in order
    "peft-mm-": "peft_metamath",
    "peft-": "peft",
    "litgpt-": "litgpt",
    "torchtune-": "torchtune",
    "titan-": "torchtitan",
    "ao-": "torchao",
    "swift-": "ms_swift",
    "qwen1-": "qwen",
    "": "others",
}
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


def main(folder: Path) -> None:
    """Write the files and say how many rows each has."""
    rows = [json.loads(line) for line in (folder / "measurements.jsonl").open(encoding="utf-8")]
    check_presets(folder, rows)
    files: dict[str, list[str]] = {}
    for row in rows:
        files.setdefault(file_name(row), []).append(compact(row))
    for name, lines in sorted(files.items()):
        text = "\n".join(lines) + "\n"
        if len(text.encode()) > MAX_FILE_BYTES:
            raise SystemExit(f"{name}: {len(text.encode()):,} bytes")
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}: {len(lines)} rows, {len(text.encode()):,} bytes\n")


def file_name(row: Mapping[str, Any]) -> str:
    """The file of a row; PEFT's own benchmark has one for each of its two metrics."""
    name = next(name for start, name in FILES.items() if row["id"].startswith(start))
    if name == "peft_metamath":
        name += "_reserved" if row["metric"] == "max_memory_reserved" else "_allocated"
    return f"{name}.jsonl"


def compact(row: Mapping[str, Any]) -> str:
    """One line of JSON without the keys that say nothing."""
    told = {key: value for key, value in row.items() if value not in (None, [], {})}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def check_presets(folder: Path, rows: list[Mapping[str, Any]]) -> None:
    """Stop if a preset differs from the config that a row names."""
    for path in sorted({row["model_config"] for row in rows if row["model_config"]}):
        if preset := PRESETS.get(Path(path).stem):
            for problem in differences(json.loads((folder / path).read_text()), preset):
                raise SystemExit(f"{path} and the preset {preset}: {problem}")


def differences(config: Mapping[str, Any], preset: str) -> Iterator[str]:
    """Sizes that differ."""
    ours = load_model_config(preset)
    for key in SIZES:
        if config[key] != getattr(ours, key):
            yield f"{key} {config[key]} against {getattr(ours, key)}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
