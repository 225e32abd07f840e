"""The workload: the contract's keys and values, what goes together, and files."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.coverage import require_modelled
from memplan.errors import ConfigError, UnsupportedError
from memplan.vocabulary import CHOICES
from memplan.workload import DEFAULTS, KEYS, Workload, load_workload, rank_warnings

# The keys of the contract's table.
CONTRACT_KEYS = (
    *("model", "library", "loop", "dtype", "autocast", "method", "rank", "alpha"),
    *("dropout", "target_modules", "modules_to_save", "num_virtual_tokens"),
    *("adapter_dtype", "peft_config", "quantization", "prepare_kbit", "optimizer"),
    *("micro_batch_size", "seq_len", "gradient_accumulation_steps"),
    *("activation_checkpointing", "attention", "attention_mask", "loss", "kernels"),
    *("max_grad_norm", "keep_outputs", "use_cache", "versions", "steps", "strategy"),
    *("dp_size", "tp_size", "pp_size", "cp_size", "ep_size", "offload", "gpu"),
)
# Every value that the contract names, by key, default first.
CONTRACT_VALUES = {
    "library": "transformers litgpt torchtune",
    "loop": "trainer plain",
    "dtype": "bfloat16 float16 float32",
    "autocast": "none bfloat16 float16",
    "method": "full lora dora rslora lora_fa vera adalora loha lokr oft boft ia3 bottleneck_adapter"
    " llama_adapter prompt_tuning prefix_tuning p_tuning bitfit llama_adapter_v2 ln_tuning"
    " last_layers embeddings_only frozen",
    "quantization": "none nf4 nf4-dq fp4 fp4-dq int8 gptq-4bit awq-4bit hqq-4bit fp8",
    "optimizer": "adamw_fused adamw_foreach adamw_loop adamw_8bit paged_adamw_8bit"
    " paged_adamw_32bit sgd sgd_momentum adafactor lion lion_8bit galore_adamw muon none",
    "attention": "sdpa sdpa-math sdpa-efficient sdpa-flash eager flash_attention_2",
    "attention_mask": "none padding",
    "loss": "full chunked fused_linear",
    "kernels": "eager liger",
    "strategy": "single ddp zero1 zero2 zero3 fsdp2",
    "offload": "none optimizer params",
}
# huggingface/transformers v5.18.0 training_args.py, `OptimizerNames`.
TRAINING_ARGUMENTS_OPTIM = (
    *("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused"),
    *("adafactor", "adamw_anyprecision", "adamw_torch_4bit", "adamw_torch_8bit"),
    *("ademamix", "sgd", "adagrad", "adamw_bnb_8bit", "adamw_8bit", "ademamix_8bit"),
    *("lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit"),
    *("paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit"),
    *("paged_lion_8bit", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit"),
    *("rmsprop_bnb_32bit", "galore_adamw", "galore_adamw_8bit", "galore_adafactor"),
    *("galore_adamw_layerwise", "galore_adamw_8bit_layerwise"),
    *("galore_adafactor_layerwise", "lomo", "adalomo", "grokadamw"),
    *("schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd", "apollo_adamw"),
    *("apollo_adamw_layerwise", "stable_adamw"),
)


def make(**keys: Any) -> Workload:
    return Workload.resolve(model="7b", **keys)[0]


def test_every_key_of_the_contract_is_a_key() -> None:
    assert set(CONTRACT_KEYS) <= set(KEYS)
    # PEFT's word, and others'
    own = {"adapters", "bias", "num_trainable_layers", "optim_args", "trainable"}
    own |= {"eval", "eval_batches", "eval_micro_batch_size", "eval_accumulation_steps", "save"}
    assert set(KEYS) - set(CONTRACT_KEYS) == own


@pytest.mark.parametrize(
    ("key", "value"), [(key, v) for key, values in CONTRACT_VALUES.items() for v in values.split()]
)
def test_every_value_of_the_contract_is_modelled_or_refused_by_name(key: str, value: str) -> None:
    if value in CHOICES[key].modelled:
        assert CHOICES[key].resolve(value, key) == value
    else:
        devices = {"dp_size": 2} if key == "strategy" else {}
        workload = make(**{"method": "lora", key: value, **devices})
        with pytest.raises(UnsupportedError, match=f"{key}: '{value}' is not modelled yet. Mod"):
            require_modelled(workload)


@pytest.mark.parametrize("key", CONTRACT_VALUES)
def test_defaults_are_the_contract_s(key: str) -> None:
    assert getattr(make(), key) == CONTRACT_VALUES[key].split()[0]


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "frozen"},
        {"optimizer": "none"},
        {"keep_outputs": True},
        {"quantization": "nf4", "prepare_kbit": False},
        {"strategy": "ddp", "dp_size": 2},
        {"method": "bottleneck_adapter"},
    ],
)
def test_what_the_trainer_does_not_run_is_run_by_the_plain_loop(keys: dict[str, Any]) -> None:
    assert make(**keys).loop == "plain"
    assert make().loop == "trainer"


@pytest.mark.parametrize("name", TRAINING_ARGUMENTS_OPTIM)
def test_every_training_arguments_optim_is_known(name: str) -> None:
    choice = CHOICES["optimizer"]
    modelled = {*choice.modelled, *(alias for alias, _ in choice.aliases)}
    assert name in modelled | {*choice.known}


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("adamw_torch", "adamw_foreach"),  # torch's own choice on CUDA: foreach
        ("adamw_torch_fused", "adamw_fused"),
        ("adamw_bnb_8bit", "adamw_8bit"),
    ],
)
def test_training_arguments_optim_values_mean_an_implementation(alias: str, name: str) -> None:
    assert make(optimizer=alias).optimizer == name


def test_resolve_lists_what_was_assumed_and_has_an_effect() -> None:
    _, assumed = Workload.resolve({"model": "7b", "method": "lora"}, rank=8)
    assert {"seq_len", "micro_batch_size", "dtype", "target_modules", "gpu"} <= set(assumed)
    assert not {"model", "method", "rank", "num_virtual_tokens", "prepare_kbit"} & set(assumed)


keys = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["7b", "llama-3.1-8b"]),
        "method": st.sampled_from(["lora", "prompt_tuning", "frozen"]),
    },
    optional={
        "dtype": st.sampled_from(["bfloat16", "float32"]),
        "quantization": st.sampled_from(["none", "nf4", "nf4-dq", "fp4", "int8"]),
        "micro_batch_size": st.integers(1, 64),
        "seq_len": st.integers(1, 1 << 20),
        "activation_checkpointing": st.sampled_from([False, True, "reentrant"]),
        "attention_mask": st.sampled_from(["none", "padding"]),
        "max_grad_norm": st.floats(0, 10),
        "steps": st.integers(1, 9),
        "gpu": st.sampled_from([None, "a10g", "24GiB"]),
        "use_cache": st.booleans(),
    },
)


@given(keys)
def test_a_workload_survives_json(given_keys: dict[str, Any]) -> None:
    workload, _ = Workload.resolve(given_keys)
    again, assumed = Workload.resolve(json.loads(json.dumps(workload.to_dict())))
    assert again == workload
    assert assumed == ()
    assert pickle.loads(pickle.dumps(workload)) == workload


def test_lora_survives_json() -> None:
    workload = make(
        method="lora",
        rank=16,
        alpha=32,
        target_modules="q_proj, v_proj",
        modules_to_save=["lm_head"],
        peft_config={"bias": "lora_only", "use_rslora": True},
    )
    assert workload.target_modules == ("q_proj", "v_proj")
    assert workload.bias == "lora_only"
    assert Workload.resolve(json.loads(json.dumps(workload.to_dict())))[0] == workload


def test_numpy_integers_are_integers() -> None:
    workload = make(method="lora", rank=np.int64(8), seq_len=np.int32(512))
    assert (type(workload.rank), workload.seq_len) == (int, 512)


def test_a_workload_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().seq_len = 1  # type: ignore[misc]
    assert dataclasses.replace(make(), seq_len=1).seq_len == 1


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        (None, None),
        ("all-linear", "all-linear"),
        ("q_proj", ("q_proj",)),
        ("q_proj,v_proj", ("q_proj", "v_proj")),
        (["q_proj", "q_proj", "o_proj"], ("q_proj", "o_proj")),
        (r".*\.(q|v)_proj", r".*\.(q|v)_proj"),
    ],
)
def test_target_modules_are_names_all_linear_or_a_pattern(given: Any, resolved: Any) -> None:
    assert make(method="lora", target_modules=given).target_modules == resolved


def test_frozen_has_no_optimizer() -> None:
    assert make(method="frozen").optimizer == "none"


def test_quantised_full_training_needs_unprepared_weights() -> None:
    with pytest.raises(ConfigError, match="freezes every parameter"):
        make(quantization="nf4")
    assert make(quantization="nf4", prepare_kbit=False).is_quantized


@pytest.mark.parametrize(
    ("keys", "prepares"),
    [
        ({"method": "lora"}, False),
        ({"method": "lora", "quantization": "nf4"}, True),
        ({"method": "lora", "quantization": "nf4", "prepare_kbit": False}, False),
        ({"method": "frozen", "quantization": "int8"}, False),
    ],
)
def test_only_quantised_models_that_train_are_prepared(
    keys: dict[str, Any], prepares: bool
) -> None:
    assert make(**keys).prepares_kbit is prepares


SHAPES = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "lm_head": (500, 4096)}


@pytest.mark.parametrize(
    ("rank", "targets", "named"),
    [
        (1024, None, []),
        (2048, None, []),
        (5000, None, ["q_proj"]),
        (1024, "all-linear", []),
        (1025, "all-linear", ["k_proj"]),
        (1025, ["q_proj", "self_attn.k_proj"], ["k_proj"]),
        (1025, r".*\.(q|k)_proj", ["k_proj"]),
        (501, ["lm_head"], ["lm_head"]),
    ],
)
def test_a_rank_above_the_matrix_is_a_warning(rank: int, targets: Any, named: list[str]) -> None:
    warnings = rank_warnings(make(method="lora", rank=rank, target_modules=targets), SHAPES)
    assert len(warnings) == bool(named)
    assert [n for n in SHAPES for w in warnings if n in w] == named


FILES = {
    "run.json": '{"model": "7b", "method": "lora", "rank": 16, "target_modules": ["q_proj"]}',
    "run.yaml": "model: 7b\nmethod: lora\nrank: 16\ntarget_modules: [q_proj]\n",
    "run.yml": "{model: 7b, method: lora, rank: 16, target_modules: [q_proj]}",
    "run.toml": 'model = "7b"\nmethod = "lora"\nrank = 16\ntarget_modules = ["q_proj"]\n',
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_keys_from_json_yaml_and_toml(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    workload, _ = Workload.resolve(load_workload(tmp_path / name))
    assert workload == make(method="lora", rank=16, target_modules=["q_proj"])


def test_yaml_none_and_booleans_are_plain(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "model: {model_type: llama, hidden_size: 64, num_attention_heads: 4}\n"
        "autocast: none\nactivation_checkpointing: true\nmax_grad_norm: 0\ngpu: null\n"
    )
    workload, _ = Workload.resolve(load_workload(tmp_path / "run.yaml"))
    assert workload.activation_checkpointing is True
    assert (workload.autocast, workload.max_grad_norm, workload.gpu) == ("none", 0.0, None)
    assert workload.model == {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}


def test_defaults_table_matches_the_record() -> None:
    told = {k: getattr(make(), k) for k in KEYS if k != "model"}
    assert told == {**DEFAULTS, "loop": "trainer"}


def test_importing_the_workload_loads_nothing_heavy() -> None:
    code = (
        "import sys, memplan.workload, memplan.hardware, memplan.models.config\n"
        "memplan.models.config.load_model_config('7b')\n"
        "print([m for m in ('numpy', 'yaml', 'torch', 'rich', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_optimizer_arguments_are_taken_as_the_trainer_takes_them() -> None:
    assert make(optimizer="apollo_adamw", optim_args="rank=64").optim_args == {"rank": 64}
    assert make(optimizer="adamw_bnb_8bit", optim_args={"min_8bit_size": 1}).optim_args
    assert make().optim_args == {}
