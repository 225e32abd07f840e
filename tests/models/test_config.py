"""Model configs against what transformers makes of them, and presets against published counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import MemplanError
from memplan.models.config import ModelConfig, load_model_config
from memplan.models.presets import (
    load_preset,
    preset_aliases,
    preset_name,
    preset_names,
    preset_record,
)

EVIDENCE = Path(__file__).parents[1] / "evidence"
CASES: list[dict[str, Any]] = json.loads((EVIDENCE / "resolved_configs.json").read_text())["cases"]
COUNTS: dict[str, Any] = json.loads((EVIDENCE / "parameter_counts.json").read_text())

# Where the answer differs on purpose.
STRICTER: tuple[dict[str, Any], ...] = (
    # a head of width 0 means "derive it" to MistralConfig, and a slip to everybody else
    {"model_type": "mistral", "head_dim": 0},
    # LlamaModel makes no sliding mask, whatever the config says
    {"model_type": "llama", "layer_types": ["sliding_attention", "full_attention"] * 2},
)


def fields(config: ModelConfig) -> dict[str, Any]:
    return {
        "head_dim": config.head_dim,
        "num_key_value_heads": config.num_key_value_heads,
        "qkv_bias": config.qkv_bias,
        "o_bias": config.o_bias,
        "mlp_bias": config.mlp_bias,
        "has_qk_norm": config.has_qk_norm,
        "tie_word_embeddings": config.tie_word_embeddings,
        "sliding_window": config.sliding_window,
        "layer_types": list(config.layer_types),
        "rope_type": config.rope_type,
        "rope_theta": float(config.rope_parameters["rope_theta"]),
        "pad_token_id": config.pad_token_id,
    }


def expected(case: dict[str, Any]) -> dict[str, Any]:
    """What was recorded, with the masks that the families make told as layer types."""
    recorded: dict[str, Any] = dict(case["resolved"])
    layers = case["config"]["num_hidden_layers"]
    if case["config"]["model_type"] == "llama":  # LlamaModel makes the causal mask only
        recorded |= {"sliding_window": None, "layer_types": ["full_attention"] * layers}
    if case["config"]["model_type"] == "mistral":  # MistralModel makes one mask for all layers
        kind = "full_attention" if recorded["sliding_window"] is None else "sliding_attention"
        recorded["layer_types"] = [kind] * layers
    return recorded


def case_id(case: dict[str, Any]) -> str:
    return "-".join(f"{k}={v}" for k, v in case["config"].items())


@pytest.mark.parametrize("case", [c for c in CASES if "resolved" in c], ids=case_id)
def test_fields_are_those_of_the_model_that_transformers_builds(case: dict[str, Any]) -> None:
    config = case["config"]
    if any(all(config.get(k) == v for k, v in strict.items()) for strict in STRICTER):
        with pytest.raises(MemplanError):
            load_model_config(config)
    else:
        assert fields(load_model_config(config)) == expected(case)


@pytest.mark.parametrize("case", [c for c in CASES if "error" in c], ids=case_id)
def test_what_transformers_cannot_run_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(MemplanError):
        load_model_config(case["config"])


@pytest.mark.parametrize("name", preset_names())
def test_preset_has_the_parameters_of_the_meta_device_model(name: str) -> None:
    assert load_model_config(name).num_parameters == COUNTS["presets"][name]["num_parameters"]


@pytest.mark.parametrize("name", COUNTS["odd"])
def test_odd_config_has_the_parameters_of_the_meta_device_model(name: str) -> None:
    recorded = COUNTS["odd"][name]
    assert load_model_config(recorded["config"]).num_parameters == recorded["num_parameters"]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # pytorch/torchtune docs/source/tutorials/lora_finetune.rst: 6742609920 with LoRA's 4194304
        ("llama-2-7b", 6742609920 - 4194304),
        # pytorch/torchtitan, log in commit 473674acf
        ("llama-3-8b", 8030261248),
        # huggingface/peft method_comparison/MetaMathQA results, num_total_params
        ("llama-3.2-3b", 3212749824),
        # QwenLM model card of Qwen3-14B on the Hub, size of its safetensors
        ("qwen3-14b", 14768307200),
    ],
)
def test_preset_has_the_published_number_of_parameters(name: str, published: int) -> None:
    assert load_model_config(name).num_parameters == published


def test_every_alias_leads_to_a_preset_and_shadows_none() -> None:
    names = set(preset_names())
    for alias, name in preset_aliases().items():
        assert name in names
        assert alias == alias.lower()
        assert alias == name or alias not in names


def test_every_repository_is_an_alias_of_its_preset() -> None:
    for name in preset_names():
        assert preset_name(preset_record(name)["_repo"]) == name


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("7b", "llama-2-7b"),
        ("13b", "llama-2-13b"),
        ("70b", "llama-2-70b"),
        ("8b", "llama-3.1-8b"),
        ("3b", "llama-3.2-3b"),
        ("1b", "llama-3.2-1b"),
        ("7B", "llama-2-7b"),
        ("meta-llama/Llama-2-7b-hf", "llama-2-7b"),
    ],
)
def test_short_names_mean_the_documented_models(alias: str, name: str) -> None:
    assert load_model_config(alias).name == name


def test_preset_says_where_it_came_from() -> None:
    for name in preset_names():
        record = preset_record(name)
        assert record["_repo"].count("/") == 1
        assert record["_source"]
        assert not any(key.startswith("_") for key in load_preset(name) if key != "_name_or_path")


def test_path_folder_and_mapping_give_the_config_of_the_preset(tmp_path: Path) -> None:
    raw = load_preset("qwen2.5-0.5b")
    (tmp_path / "config.json").write_text(json.dumps(raw))
    preset = fields(load_model_config("qwen2.5-0.5b"))
    for spec in (tmp_path, tmp_path / "config.json", str(tmp_path), raw):
        assert fields(load_model_config(spec)) == preset


def test_missing_keys_take_the_class_default_and_are_listed() -> None:
    config = load_model_config({"model_type": "mistral", "hidden_size": 1024})
    assert config.intermediate_size == 14336
    assert config.sliding_window == 4096
    assert "intermediate_size" in config.assumed
    assert "hidden_size" not in config.assumed


def test_preset_assumes_nothing() -> None:
    assert load_model_config("7b").assumed == ()


def test_keys_without_effect_are_listed_and_keys_that_were_read_are_not() -> None:
    config = load_model_config(
        {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 5e5, "custom_key": 1}
    )
    assert config.ignored == ("rms_norm_eps", "custom_key")
    assert config.rope_parameters["rope_theta"] == 5e5


def test_folder_of_an_alias_name_is_found_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7b").mkdir()
    (tmp_path / "7b" / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 3}')
    assert load_model_config("7b").num_hidden_layers == 32
    assert load_model_config("./7b").num_hidden_layers == 3
