from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest

from memplan.estimate import estimate
from memplan.evidence.model_keys import model_keys, quantization_of

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
    "num_attention_heads": 4, "vocab_size": 100, "dtype": "bfloat16", "id2label": {0: "a"},
}  # fmt: skip


class PeftType(str, Enum):
    LORA = "LORA"
    VERA = "VERA"


def model(**more: Any) -> Any:
    config = {**CONFIG, **more.pop("config", {})}
    known = SimpleNamespace(to_dict=lambda: dict(config), dtype="torch.bfloat16")
    return SimpleNamespace(config=known, **more)


def lora(kind: PeftType = PeftType.LORA) -> Any:
    values = {
        "peft_type": kind, "r": 4, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none",
        "target_modules": {"v_proj", "q_proj"}, "modules_to_save": None,
    }  # fmt: skip
    return SimpleNamespace(to_dict=lambda: values)


def test_names_and_mappings_stand_for_themselves() -> None:
    assert model_keys(None) == {}
    assert model_keys("7b") == {"model": "7b"}
    assert model_keys({"model_type": "llama"}) == {"model": {"model_type": "llama"}}
    assert model_keys(object()) == {}


def test_a_model_tells_its_config_and_dtype() -> None:
    result = estimate(**model_keys(model()), seq_len=8)
    assert result.workload["dtype"] == "bfloat16"
    assert (result.workload["method"], result.workload["quantization"]) == ("full", "none")


def test_a_peft_model_tells_its_method() -> None:
    keys = model_keys(model(peft_config={"default": lora()}))
    result = estimate(**keys, seq_len=8)
    assert (result.workload["method"], result.workload["rank"]) == ("lora", 4)
    assert result.parameters.trainable == 4 * (64 + 64) * 2
    vera = model_keys(model(peft_config={"default": lora(PeftType.VERA)}))
    assert vera["method"] == "vera"


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({}, "none"),
        ({"load_in_8bit": True}, "int8"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
        ({"load_in_4bit": True}, "fp4"),
        ({"quant_method": "gptq"}, "gptq"),
    ],
)
def test_quantisation_is_told(config: dict[str, Any], word: str) -> None:
    assert quantization_of(config) == word
    assert model_keys(model(config={"quantization_config": config}))["quantization"] == word
