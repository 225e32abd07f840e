from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli.app import find_command
from memplan.cli.flags import HELP, read_flag, read_workload
from memplan.cli.options import read_options
from memplan.errors import ConfigError
from memplan.workload import KEYS, Workload


def test_every_key_of_a_workload_is_a_flag_with_help() -> None:
    assert set(HELP) == set(KEYS)
    assert set(KEYS) <= {option.name for option in find_command("estimate").options}
    assert set(KEYS) - {"method", "rank"} <= {o.name for o in find_command("compare").options}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("rank", "8", 8),
        ("rank", "1.5", 1.5),
        ("rank", "-1", -1),
        ("rank", "eight", "eight"),
        ("dropout", "0.1", 0.1),
        ("keep_outputs", "true", True),
        ("keep_outputs", "yes", "yes"),
        ("model", "7", "7"),
        ("gpu", "24GiB", "24GiB"),
        ("versions", '{"torch": "2.14"}', {"torch": "2.14"}),
        ("seq_len", "9" * 5000, float("inf")),
    ],
)
def test_flag_text_becomes_the_value_that_a_file_would_hold(
    key: str, text: str, value: object
) -> None:
    assert read_flag(key, text) == value


def test_mapping_that_is_no_json_says_so() -> None:
    with pytest.raises(ConfigError, match="peft_config: expected JSON"):
        read_flag("peft_config", "{use_rslora: yes}")


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"model": "7b", "method": "lora", "rank": 8}))
    keys = read_workload(str(file), {"rank": "16"})
    assert keys == {"model": "7b", "method": "lora", "rank": 16}


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "9" * 30, "nan", "inf", "1e3"])
@pytest.mark.parametrize("key", ["rank", "seq_len", "micro_batch_size", "steps"])
def test_bad_number_reads_the_same_in_a_flag_and_in_a_file(key: str, text: str) -> None:
    base = {"model": "7b", "method": "lora"}
    with pytest.raises(ConfigError) as error:
        Workload.resolve({**base, key: read_flag(key, text)})
    assert str(error.value).startswith(f"{key}: ")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("--rank -1", {"rank": "-1"}),
        ("--rank=8 --json", {"rank": "8", "as_json": True}),
        ("--use-cache --json", {"use_cache": "true", "as_json": True}),
        ("--use-cache false", {"use_cache": "false"}),
        ("--no-use-cache", {"use_cache": "false"}),
        ("--activation-checkpointing", {"activation_checkpointing": "true"}),
        ("--activation-checkpointing reentrant", {"activation_checkpointing": "reentrant"}),
        ("--rank 8 --rank 16", {"rank": "16"}),
    ],
)
def test_words_become_options(line: str, given: dict[str, object]) -> None:
    options = find_command("estimate").options
    assert read_options(line.split(), options, program="memplan estimate") == given
