from __future__ import annotations

from typing import Any

import pytest

from memplan.counting import checkpoint_bytes
from memplan.dtypes import FP32
from memplan.errors import ConfigError
from memplan.methods.dora import DoraEmbeddingLayer, DoraLinearLayer
from tests.methods.models import (
    HEAD,
    HIDDEN,
    KEY_VALUE_HEADS,
    LAYERS,
    VOCABULARY,
    adapted,
    adapter_blocks,
    forward_blocks,
    trainable,
)

Json = dict[str, Any]
KV = KEY_VALUE_HEADS * HEAD
RANK = 4


def test_a_magnitude_trains_for_each_output() -> None:
    with adapted(method="dora", rank=RANK, target_modules=["v_proj"]) as (model, _):
        layers = [m for m in model.modules() if isinstance(m, DoraLinearLayer)]
        assert [m.weight.shape for m in layers] == [(KV,)] * LAYERS
        assert {m.weight.dtype for m in layers} == {FP32}
        assert trainable(model)[:3] == [
            f"model.layers.0.self_attn.v_proj.{name}.weight"
            for name in ("lora_A", "lora_B", "lora_magnitude_vector")
        ]


def test_an_embedding_has_a_magnitude_for_each_column() -> None:
    with adapted(method="dora", rank=RANK, target_modules=["embed_tokens"]) as (model, _):
        (layer,) = [m for m in model.modules() if isinstance(m, DoraEmbeddingLayer)]
        assert layer.weight.shape == (HIDDEN,)


def test_the_first_norm_makes_the_update_and_the_adapted_weight_whole() -> None:
    keys: Json = {
        "method": "dora",
        "rank": RANK,
        "target_modules": ["v_proj"],
        "adapter_dtype": "base",
    }
    with adapted(**keys, model={"num_hidden_layers": 1}) as (_, tape):
        weight = 2 * KV * HIDDEN
        workspace = 4096 * 1024 * 2 + 16 * 1024 * 8
        update, scaled, whole = weight, weight, weight
        moved = [2 * RANK * HIDDEN, 2 * KV * RANK]
        assert adapter_blocks(tape) == [*moved, update, workspace, scaled, whole, 2 * KV]


def test_a_forward_makes_an_identity_and_the_weight_in_the_adapters_dtype() -> None:
    keys: Json = {"method": "dora", "rank": RANK, "target_modules": ["v_proj"]}
    blocks = forward_blocks(**keys, seq_len=16)
    identity, weight = 4 * HIDDEN * HIDDEN, 4 * KV * HIDDEN
    assert blocks.count(identity) >= LAYERS
    assert blocks.count(weight) >= 4 * LAYERS  # the update, the cast weight, the scaled, the sum


def test_a_four_bit_layer_is_copied_before_it_is_dequantised() -> None:
    keys: Json = {"rank": RANK, "quantization": "nf4", "target_modules": ["q_proj"]}
    keys["prepare_kbit"] = False
    with adapted(method="lora", **keys) as (_, tape):
        plain = adapter_blocks(tape)
    with adapted(method="dora", **keys) as (_, tape):
        blocks = adapter_blocks(tape)
    absmax, packed = 4 * HIDDEN * HIDDEN // 64, HIDDEN * HIDDEN // 2
    assert plain.count(absmax) == plain.count(packed) == 0
    assert (blocks.count(absmax), blocks.count(packed)) == (2 * LAYERS, LAYERS)


def test_the_checkpoint_holds_the_magnitudes() -> None:
    keys: Json = {"rank": RANK, "target_modules": ["v_proj"]}
    with adapted(method="lora", **keys) as (model, _):
        without = checkpoint_bytes(model, "lora")
    with adapted(method="dora", **keys) as (model, _):
        assert checkpoint_bytes(model, "dora") == without + 4 * KV * LAYERS


def test_an_adapted_embedding_is_saved_whole() -> None:
    with adapted(method="lora", rank=RANK, target_modules=["embed_tokens"]) as (model, _):
        matrices = 4 * RANK * (VOCABULARY + HIDDEN)
        assert checkpoint_bytes(model, "lora") == matrices + 2 * VOCABULARY * HIDDEN


def test_a_bias_of_b_does_not_go_with_dora() -> None:
    with pytest.raises(ConfigError, match="does not support it for DoRA"):
        adapted(method="dora", peft_config={"lora_bias": True}).__enter__()


def test_use_dora_makes_dora_of_lora() -> None:
    with adapted(method="lora", rank=RANK, peft_config={"use_dora": True}) as (model, _):
        assert any(isinstance(m, DoraLinearLayer) for m in model.modules())
    with adapted(method="dora", rank=RANK, peft_config={"use_dora": False}) as (model, _):
        assert not any(isinstance(m, DoraLinearLayer) for m in model.modules())
