"""Bad input through the Python API: one clear paragraph each, never a bare exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.errors import MemplanError, UnsupportedError
from memplan.hardware import load_device
from memplan.models.config import load_model_config
from memplan.models.keys import FAMILIES, IGNORED, REFUSED
from memplan.running import Run
from memplan.workload import KEYS, Workload, load_workload

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 100,
}
LORA: dict[str, Any] = {"model": "7b", "method": "lora"}
APOLLO = {"model": "7b", "optimizer": "apollo_adamw"}


def refused(call: Any, *args: Any) -> str:
    """The message of the error that ``call`` raises: one paragraph, exit code 2."""
    with pytest.raises(MemplanError) as raised:
        call(*args)
    message = str(raised.value)
    assert raised.value.exit_code == 2
    assert message
    assert "\n" not in message
    assert len(message) < 1500
    return message


WORKLOADS: list[tuple[dict[str, Any], str]] = [
    ({}, "model: not given"),
    ({"model": None}, "model: not given"),
    ({"model": ""}, "model: expected a name"),
    ({"model": 7}, "model: expected a name"),
    ({"model": "7b", "rnk": 8}, "Did you mean 'rank'"),
    ({"model": "7b", "micro_batchsize": 8}, "Did you mean 'micro_batch_size'"),
    ({"model": "7b", "method": "lor"}, "Did you mean 'lora'"),
    ({"model": "7b", "method": 3}, "method: expected a name"),
    ({"model": "7b", "optimizer": "adamw_torc"}, "Did you mean 'adamw_torch'"),
    ({"model": "7b", "quantization": "nf5"}, "Did you mean"),
    ({"model": "7b", "strategy": "ddp"}, "strategy: ddp: say over how many devices"),
    ({"model": "7b", "tp_size": 2}, "tp_size: only 1"),
    ({"model": "7b", "dp_size": 2}, "dp_size: 2 devices take a strategy"),
    ({"model": "7b", "versions": {"bitsandbytes": "0.44"}}, "bitsandbytes 0.44 is not modelled"),
    ({"model": "7b", "versions": {"bitsandbyte": "0.50"}}, "Did you mean 'bitsandbytes'"),
    ({"model": "7b", "versions": ["torch"]}, "versions: expected a mapping"),
    ({**LORA, "rank": 0}, "rank: expected an integer >= 1, got 0"),
    ({**LORA, "rank": -1}, "rank: expected an integer >= 1, got -1"),
    ({**LORA, "rank": 1.5}, "rank: expected an integer >= 1, got 1.5"),
    ({**LORA, "rank": 1.0}, "rank: expected an integer >= 1, got 1.0"),
    ({**LORA, "rank": True}, "rank: expected an integer >= 1, got True"),
    ({**LORA, "rank": "sixteen"}, "rank: expected an integer >= 1, got 'sixteen'"),
    ({**LORA, "rank": float("nan")}, "rank: expected an integer >= 1, got nan"),
    ({**LORA, "rank": None}, "rank: expected an integer >= 1, got None"),
    ({**LORA, "rank": [4, 8]}, "rank: expected an integer"),
    ({**LORA, "rank": np.array([4, 8])}, "rank: expected an integer"),
    ({**LORA, "rank": 10**4000}, "rank: an integer of more than 77 digits is above"),
    ({**LORA, "rank": 10**9}, "is above"),
    ({"model": "7b", "micro_batch_size": 0}, "micro_batch_size: expected an integer >= 1"),
    ({"model": "7b", "seq_len": -512}, "seq_len: expected an integer >= 1"),
    ({"model": "7b", "seq_len": 10**30}, "no run is that large"),
    ({"model": "7b", "seq_len": 1 << 25, "micro_batch_size": 1 << 25}, "tokens per forward"),
    ({"model": "7b", "gradient_accumulation_steps": 0}, "gradient_accumulation_steps: expected"),
    ({"model": "7b", "steps": 0}, "steps: expected an integer >= 1"),
    ({"model": "7b", "max_grad_norm": -1}, "max_grad_norm: expected a finite number >= 0"),
    ({"model": "7b", "max_grad_norm": float("inf")}, "max_grad_norm: expected a finite number"),
    ({"model": "7b", "max_grad_norm": "1"}, "max_grad_norm: expected a number"),
    ({"model": "7b", "keep_outputs": "yes"}, "keep_outputs: expected true or false"),
    ({"model": "7b", "use_cache": 1}, "use_cache: expected true or false"),
    ({"model": "7b", "activation_checkpointing": "full"}, "false, true or reentrant"),
    ({"model": "7b", "activation_checkpointing": 1}, "false, true or reentrant"),
    ({"model": "7b", "gpu": 0}, "gpu: expected an integer"),
    ({"model": "7b", "gpu": 1.5}, "gpu: expected a name"),
    ({"model": "7b", "rank": 16}, "rank: the method full takes none; it belongs to lora"),
    ({**LORA, "num_virtual_tokens": 5}, "belongs to prompt_tuning"),
    ({**LORA, "dropout": 1.0}, "dropout: expected a probability"),
    ({**LORA, "dropout": -0.1}, "dropout: expected"),
    ({**LORA, "alpha": "8"}, "alpha: expected a number"),
    ({**LORA, "bias": "some"}, "unknown bias"),
    ({**LORA, "adapter_dtype": "int8"}, "unknown adapter_dtype"),
    ({**LORA, "target_modules": []}, "target_modules: the list is empty"),
    ({**LORA, "target_modules": ""}, "target_modules: expected a name"),
    ({**LORA, "target_modules": [1]}, "target_modules: expected a name"),
    ({**LORA, "target_modules": "(q_proj"}, "nor a regular expression"),
    ({**LORA, "target_modules": 3}, "target_modules: expected a list of names"),
    ({**LORA, "peft_config": {"r": 8}}, "give it as the workload key rank"),
    ({**LORA, "peft_config": {"use_rslor": True}}, "Did you mean 'use_rslora'"),
    ({**LORA, "peft_config": {"bias": "all"}, "bias": "lora_only"}, "peft_config says 'all'"),
    ({**LORA, "peft_config": "bias"}, "peft_config: expected a mapping"),
    ({"model": "7b", "method": "frozen", "optimizer": "sgd"}, "trains nothing"),
    ({"model": "7b", "quantization": "nf4"}, "does not go with quantization"),
    ({"model": "7b", "attention": "sdpa-flash", "attention_mask": "padding"}, "takes no mask"),
    ({"model": "7b", "attention": "sdpa-flash", "dtype": "float32"}, "no float32 kernel"),
    ({"model": "7b", "optim_args": {"min_8bit_size": 1}}, "adamw_fused takes none; it belongs to"),
    ({"model": "7b", "optim_args": {"ranks": 1}}, "unknown optim_args key"),
    ({**APOLLO, "optim_args": {"rank": 0}}, "optim_args: rank"),
    ({**APOLLO, "optim_args": "rank=many"}, "optim_args: rank"),
]


NOT_MODELLED: list[tuple[dict[str, Any], str]] = [
    ({"model": "7b", "method": "poly"}, "not modelled yet"),
    ({"model": "7b", "optimizer": "galore_adamw"}, "not modelled yet"),
    ({**LORA, "peft_config": {"use_bdlora": True}}, "use_bdlora: True is not modelled"),
    ({**LORA, "peft_config": {"use_dora": 0}}, "use_dora: 0 is not modelled"),
]


@pytest.mark.parametrize(("keys", "says"), NOT_MODELLED, ids=lambda v: str(v)[:60])
def test_the_byte_engine_says_what_it_does_not_model(keys: dict[str, Any], says: str) -> None:
    assert says in refused(Run.of, Workload.resolve(keys)[0])


@pytest.mark.parametrize(("keys", "says"), WORKLOADS, ids=lambda v: str(v)[:60])
def test_a_bad_workload_says_what_is_wrong(keys: dict[str, Any], says: str) -> None:
    assert says in refused(Workload.resolve, keys)


def test_a_nest_of_lists_is_no_number() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "rank: expected an integer" in refused(Workload.resolve, {**LORA, "rank": deep})


def test_a_model_mapping_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {"model_type": "llama"}
    loop["rope_scaling"] = loop
    assert "nested too deep" in refused(Workload.resolve, {"model": loop})
    assert "nested too deep" in refused(load_model_config, loop)


def test_unknown_model_names_the_nearest() -> None:
    assert "Did you mean 'llama-2-7b'" in refused(load_model_config, "lama-2-7b")


@pytest.mark.parametrize("name", ["8x", "x" * 100_000, "\0", "a\nb", "..", "~nobody/x", "🦙"])
def test_any_text_as_a_model_is_refused_clearly(name: str) -> None:
    refused(load_model_config, name)


def test_a_path_that_does_not_exist_says_so() -> None:
    assert "no file or folder './nowhere/config.json'" in refused(
        load_model_config, "./nowhere/config.json"
    )


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({}, "model_type: not given"),
    ({**LLAMA, "model_type": "lama"}, "Did you mean 'llama'"),
    ({**LLAMA, "model_type": "gemma2"}, "Supported: llama, mistral, qwen2, qwen3"),
    ({**LLAMA, "model_type": 3}, "model_type: expected a name"),
    ({**LLAMA, "hiden_size": 64}, "did you mean 'hidden_size'"),
    *[
        ({**LLAMA, key: value}, f"{key}: expected an integer >= 1")
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        for value in (0, -4, 1.5, 64.0, True, "64", float("nan"), [64])
    ],
    ({**LLAMA, "hidden_size": None}, "hidden_size: is null"),
    ({**LLAMA, "intermediate_size": 10**12}, "no model is that large"),
    ({**LLAMA, "num_hidden_layers": 10**6}, "no model is that large"),
    ({**LLAMA, "vocab_size": 10**500}, "an integer of more than 77 digits"),
    ({**LLAMA, "num_attention_heads": 7}, "not a multiple of num_attention_heads 7"),
    ({**LLAMA, "num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
    ({**LLAMA, "num_key_value_heads": 16}, "not a multiple of num_key_value_heads 16"),
    ({**LLAMA, "model_type": "qwen2", "num_attention_heads": 12}, "Give head_dim"),
    ({**LLAMA, "head_dim": 7}, "head_dim 7 is odd"),
    ({**LLAMA, "hidden_act": "gelu"}, "hidden_act 'gelu' is not supported yet"),
    ({**LLAMA, "attention_dropout": 1.0}, "attention_dropout: expected a number below 1"),
    ({**LLAMA, "attention_bias": "yes"}, "attention_bias: expected true or false"),
    ({**LLAMA, "tie_word_embeddings": 1}, "tie_word_embeddings: expected true or false"),
    ({**LLAMA, "pad_token_id": 100}, "pad_token_id"),
    ({**LLAMA, "rope_scaling": 3}, "rope_scaling: expected a mapping"),
    ({**LLAMA, "rope_scaling": {"type": "ntk"}}, "rope_type 'ntk' is not supported"),
    ({**LLAMA, "rope_scaling": {"type": "linear"}}, "linear needs factor"),
    ({**LLAMA, "rope_theta": "big"}, "rope_theta: expected a number"),
    ({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, "quantised already"),
    ({**LLAMA, "output_attentions": True}, "output_attentions: not supported"),
    ({**LLAMA, "model_type": "qwen2", "layer_types": ["conv", "conv"]}, "layer_types: 'conv'"),
    ({**LLAMA, "model_type": "qwen2", "layer_types": 3}, "layer_types: expected a list"),
    ({**LLAMA, "model_type": "mistral", "sliding_window": 0}, "sliding_window: expected"),
]


@pytest.mark.parametrize(("config", "says"), CONFIGS, ids=lambda v: str(v)[-60:])
def test_a_bad_config_says_what_is_wrong(config: dict[str, Any], says: str, tmp_path: Path) -> None:
    assert says in refused(load_model_config, config)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    if "nan" not in says and float("nan") not in config.values() and "77 digits" not in says:
        assert str(path) in refused(load_model_config, path)
    else:
        refused(load_model_config, path)


def test_an_unsupported_architecture_says_which_are_supported() -> None:
    with pytest.raises(UnsupportedError, match="Supported: llama, mistral, qwen2, qwen3"):
        load_model_config({"model_type": "mixtral"})


def test_a_rank_above_the_matrix_is_legal() -> None:
    assert Workload.resolve(LORA, rank=5000)[0].rank == 5000


BAD_FILES = {
    "empty": b"",
    "blank": b"  \n ",
    "truncated": b'{"model_type": "llama", "hidden_si',
    "not-json": b"model_type: llama",
    "a-list": b'[{"model_type": "llama"}]',
    "a-number": b"3",
    "null": b"null",
    "not-text": b"\x89PNG\r\n\x1a\n\x00\xff",
    "deep-list": b"[" * 10_000 + b"]" * 10_000,
    "deep-mapping": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep-value": b'{"model_type": "llama", "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep-unclosed": b"[" * 10_000,
    "nan": b'{"model_type": "llama", "hidden_size": NaN}',
    "infinity": b'{"model_type": "llama", "hidden_size": 1e999}',
    "many-digits": b'{"model_type": "llama", "hidden_size": ' + b"9" * 10_000 + b"}",
    "twice": b'{"model_type": "llama", "model_type": "qwen2"}',
    "wide": b'{"model_type": "llama", "x": [' + b"0," * 300_000 + b"0]}",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_config_file_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(BAD_FILES[name])
    assert str(path) in refused(load_model_config, path)
    assert str(path) in refused(load_model_config, tmp_path)


def test_a_config_of_100_mb_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    assert "larger than" in refused(load_model_config, path)


def test_missing_files_and_folders_say_so(tmp_path: Path) -> None:
    assert "no config.json" in refused(load_model_config, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "name the base model" in refused(load_model_config, tmp_path)
    assert "no file or folder" in refused(load_model_config, tmp_path / "config.json")
    assert "no such file" in refused(load_workload, tmp_path / "run.yaml")
    assert "cannot tell the format" in refused(load_workload, tmp_path / "run.txt")
    (tmp_path / "folder.yaml").mkdir()
    assert "is a directory" in refused(load_workload, tmp_path / "folder.yaml")


def test_an_unreadable_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.symlink_to(path)
    refused(load_model_config, path)
    refused(load_workload, path)


def laugh(letter: int) -> bytes:
    """A YAML line whose value is nine times that of the line before."""
    return b"%c: &%c [%s]\n" % (letter, letter, b", ".join([b"*%c" % (letter - 1)] * 9))


BAD_WORKLOAD_FILES = {
    "unknown.yaml": (b"model: 7b\nrnk: 8\n", "Did you mean 'rank'"),
    "twice.yaml": (b"model: 7b\nmodel: 8b\n", "'model' occurs twice"),
    "twice.json": (b'{"model": "7b", "model": "8b"}', "'model' occurs twice"),
    "twice.toml": (b'model = "7b"\nmodel = "8b"\n', "cannot be read"),
    "list.yaml": (b"- model\n- 7b\n", "expected a mapping"),
    "text.yaml": (b"7b\n", "expected a mapping"),
    "empty.yaml": (b"# nothing\n", "expected a mapping"),
    "empty.toml": (b"", "the file is empty"),
    "broken.yaml": (b"model: [7b\n", "cannot be read"),
    "broken.toml": (b"model = \n", "cannot be read"),
    "tab.yaml": (b"model:\t7b\n\tx", "cannot be read"),
    "number-key.yaml": (b"1: 7b\n", "is not text"),
    "list-key.yaml": (b"? [1, 2]\n: 3\n", "cannot be read"),
    "python.yaml": (b"model: !!python/object/apply:os.system ['true']\n", "cannot be read"),
    "two.yaml": (b"model: 7b\n---\nmodel: 8b\n", "cannot be read"),
    "binary.yaml": (b"\x00\x01\x02", "cannot be read"),
    "deep.yaml": (b"a: " + b"[" * 10_000 + b"]" * 10_000, "nested too deep"),
    "deep.toml": (b"a = " + b"[" * 10_000 + b"]" * 10_000, ""),
    "laughs.yaml": (
        b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(map(laugh, b"bcdefg")),
        "more than",
    ),
}


@pytest.mark.parametrize("name", BAD_WORKLOAD_FILES)
def test_a_bad_workload_file_says_what_is_wrong(name: str, tmp_path: Path) -> None:
    content, says = BAD_WORKLOAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    message = refused(load_workload, tmp_path / name)
    assert str(tmp_path / name) in message
    assert says in message


@pytest.mark.parametrize("name", ["a10", "", "h1000", "24", "-24GiB", "0", "1e400", "x" * 100_000])
def test_a_bad_gpu_is_refused(name: str) -> None:
    refused(load_device, name)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary()
)
anything = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3)
)


CONFIG_KEYS = sorted({k for f in FAMILIES.values() for k in f.defaults} | IGNORED | REFUSED.keys())


def taken_or_refused(call: Any, value: Any) -> None:
    message = ""
    try:
        call(value)
    except MemplanError as error:
        message = str(error)
    assert "\n" not in message


@given(st.sampled_from(KEYS), anything)
def test_any_value_of_any_key_is_taken_or_refused(key: str, value: Any) -> None:
    taken_or_refused(Workload.resolve, {**LORA, key: value})


@given(st.sampled_from(sorted(FAMILIES)), st.sampled_from(CONFIG_KEYS), anything)
def test_any_value_of_any_config_key_is_taken_or_refused(
    model_type: str, key: str, value: Any
) -> None:
    taken_or_refused(load_model_config, {**LLAMA, "model_type": model_type, key: value})


@given(st.text())
def test_any_text_as_a_gpu_is_taken_or_refused(text: str) -> None:
    taken_or_refused(load_device, text)
