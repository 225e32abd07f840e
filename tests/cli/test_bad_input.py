"""Whatever is given, a mistake is one clear paragraph with exit code 2 and no traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_app import run

TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 128,
}
LORA = "--method lora --seq-len 8"


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    code, out, err = run(capsys, words)
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert 20 < len(err) < 1500
    return err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--model 7bb", "7b"),
        ("--model llama-2-7", "llama-2-7b"),
        ("--model 7b --method lorra", "'lora'"),
        ("--model 7b --method poly --engine bytes", "not modelled"),
        ("--model 7b --method bitfit", "has no bias"),
        ("--model 7b --method llama_adapter_v2", "not modelled"),
        ("--model 7b --engine byte", "'bytes'"),
        ("--model 7b --quantization nf5", "'nf4'"),
        ("--model 7b --optimizer adamm", "adam"),
        ("--model 7b --gpu a10gg", "a10g"),
        ("--model 7b --gpu 0GiB", "gpu"),
        ("--model 7b --gpu -24GiB", "gpu"),
        ("--model 7b --method lora --rank 0", "rank: expected an integer >= 1, got 0"),
        ("--model 7b --method lora --rank -1", "rank: expected an integer >= 1, got -1"),
        ("--model 7b --method lora --rank 1.5", "rank: expected an integer >= 1, got 1.5"),
        ("--model 7b --seq-len 0", "seq_len"),
        ("--model 7b --seq-len -5", "seq_len"),
        ("--model 7b --seq-len 99999999999999999999", "seq_len"),
        ("--model 7b --seq-len 2k", "seq_len"),
        ("--model 7b --micro-batch-size 1.5", "micro_batch_size"),
        ("--model 7b --micro-batch-size 100000 --seq-len 100000", "tokens"),
        ("--model 7b --steps 0", "steps"),
        ("--model 7b --max-grad-norm nan", "max_grad_norm"),
        ("--model 7b --method lora --dropout 1.5", "dropout"),
        ("--model 7b --method lora --target-modules q_porj", "q_porj"),
        ("--model 7b --method lora --target-modules [q", "target_modules"),
        ("--model 7b --method lora --peft-config {", "peft_config"),
        ("--model 7b --use-cache maybe", "use_cache"),
        ("--model 7b --tp-size 2", "tp_size"),
        ("--model 7b --rank 16", "rank"),
        ("--model /no/such/config.json", "/no/such/config.json"),
    ],
)
def test_bad_flag(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in refused(capsys, ["estimate", *line.split()])


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("empty", "", "empty"),
        ("blank", " \n", "empty"),
        ("truncated", json.dumps(TINY)[:-20], "config.json"),
        ("no-json", "model_type: llama", "config.json"),
        ("binary", "\x00\x01\x02", "config.json"),
        ("list", "[1, 2]", "mapping"),
        ("number", "7", "mapping"),
        ("null", "null", "mapping"),
        ("no-object", '"llama"', "mapping"),
        ("empty-object", "{}", "model_type"),
        ("nested", nested(10_000), "deep"),
        ("architecture", json.dumps({**TINY, "model_type": "mamba"}), "llama"),
        ("gpt2", json.dumps({"model_type": "gpt2"}), "qwen3"),
        ("negative", json.dumps({**TINY, "hidden_size": -64}), "hidden_size"),
        ("zero", json.dumps({**TINY, "vocab_size": 0}), "vocab_size"),
        ("fraction", json.dumps({**TINY, "num_hidden_layers": 1.5}), "num_hidden_layers"),
        ("text", json.dumps({**TINY, "num_attention_heads": "four"}), "num_attention_heads"),
        ("true", json.dumps({**TINY, "num_attention_heads": True}), "num_attention_heads"),
        ("huge", json.dumps({**TINY, "hidden_size": 10**30}), "hidden_size"),
        ("heads", json.dumps({**TINY, "num_attention_heads": 5}), "num_attention_heads"),
        ("groups", json.dumps({**TINY, "num_key_value_heads": 3}), "num_key_value_heads"),
        ("nan", '{"model_type": "llama", "hidden_size": NaN}', "NaN"),
        ("twice", '{"model_type": "llama", "model_type": "llama"}', "twice"),
    ],
)
def test_bad_model_config(
    name: str, text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    for path in (tmp_path, tmp_path / "config.json"):
        words = ["estimate", "--model", str(path), "--engine", "bytes", *LORA.split()]
        err = refused(capsys, words)
        assert told in err, name
        assert "config.json" in err


def test_model_config_of_100_mb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(100 << 20)
    assert "larger than" in refused(capsys, ["estimate", "--model", str(tmp_path)])


def test_folder_without_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "config.json" in refused(capsys, ["estimate", "--model", str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("run.yaml", "model: 7b\nranc: 8\n", "'rank'"),
        ("run.yaml", "model: [7b\n", "run.yaml"),
        ("run.yaml", "- 7b\n", "mapping"),
        ("run.yaml", "model: 7b\nmodel: 13b\n", "twice"),
        ("run.yaml", "model: 7b\nmethod: lora\nrank: 1.5\n", "rank: expected an integer"),
        ("run.yaml", "method: lora\n", "model: not given"),
        ("run.json", "{", "run.json"),
        ("run.json", nested(10_000), "deep"),
        ("run.toml", "model = ", "run.toml"),
        ("run.txt", "model: 7b", "format"),
        ("run.yaml", "", "empty"),
    ],
)
def test_bad_workload_file(
    name: str, text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    err = refused(capsys, ["estimate", "--workload", str(tmp_path / name)])
    assert told in err


def test_rank_above_the_matrix_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY), encoding="utf-8")
    words = ["estimate", "--model", str(tmp_path), "--method", "lora", "--rank", "4096", "--json"]
    code, out, _ = run(capsys, [*words, "--seq-len", "8"])
    assert code == 0
    assert "above the rank of the matrices" in json.loads(out)["warnings"][0]
