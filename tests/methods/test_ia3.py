from __future__ import annotations

from typing import Any

import pytest

from memplan.errors import ConfigError
from memplan.methods.ia3 import is_feedforward
from tests.methods.models import (
    HEAD,
    HIDDEN,
    KEY_VALUE_HEADS,
    LAYERS,
    MLP,
    adapted,
    adapter_blocks,
    forward_blocks,
    trainable,
)

KV = KEY_VALUE_HEADS * HEAD
TOKENS = 33


def test_vectors_are_made_in_the_base_dtype_then_cast_to_fp32_one_by_one() -> None:
    with adapted(method="ia3") as (model, tape):
        assert adapter_blocks(tape) == [
            *([KV * 2, KV * 2, MLP * 2] * LAYERS),
            *([KV * 4, KV * 4, MLP * 4] * LAYERS),
        ]
        shapes = [p.shape for p in model.parameters() if p.requires_grad]
        assert shapes == [(KV, 1), (KV, 1), (1, MLP)] * LAYERS


def test_in_the_base_dtype_if_autocast_adapter_dtype_is_off() -> None:
    with adapted(method="ia3", adapter_dtype="base") as (_, tape):
        assert adapter_blocks(tape) == [KV * 2, KV * 2, MLP * 2] * LAYERS


def test_beside_packed_weights_vectors_are_fp32_from_the_start() -> None:
    with adapted(method="ia3", quantization="int8", prepare_kbit=False, dtype="float32") as (_, t):
        assert adapter_blocks(t) == [KV * 4, KV * 4, MLP * 4] * LAYERS


def test_the_result_is_scaled_in_fp32_and_cast_back() -> None:
    blocks = forward_blocks(method="ia3", target_modules=["q_proj"], seq_len=TOKENS)
    first = blocks.index(HIDDEN * 4)
    assert blocks[first : first + 4] == [
        HIDDEN * 4,  # 1 * ia3_l
        TOKENS * HIDDEN * 2,  # queries
        TOKENS * HIDDEN * 4,  # times the vector
        TOKENS * HIDDEN * 2,  # in the model's dtype again
    ]


def test_the_input_of_a_feed_forward_layer_is_scaled() -> None:
    with adapted(method="ia3", target_modules=["q_proj", "up_proj"]) as (model, _):
        assert {p.shape for p in model.parameters() if p.requires_grad} == {(HIDDEN, 1), (MLP, 1)}
    keys = {"peft_config": {"feedforward_modules": ["up_proj"]}}
    with adapted(method="ia3", target_modules=["q_proj", "up_proj"], **keys) as (model, _):
        shapes = {p.shape for p in model.parameters() if p.requires_grad}
        assert shapes == {(HIDDEN, 1), (1, HIDDEN)}


def test_feed_forward_modules_are_matched_by_the_end_or_in_full() -> None:
    assert is_feedforward("model.layers.0.mlp.down_proj", ("n_proj",))
    assert not is_feedforward("model.layers.0.mlp.down_proj", "down_proj")
    assert is_feedforward("model.layers.0.mlp.down_proj", r".*down_proj")


def test_feed_forward_modules_must_be_targets() -> None:
    keys: dict[str, Any] = {
        "target_modules": ["q_proj"],
        "peft_config": {"feedforward_modules": ["up_proj"]},
    }
    with (
        pytest.raises(ConfigError, match="up_proj must be among the target_modules"),
        adapted(method="ia3", **keys),
    ):
        pass


def test_fp32_outputs_in_a_16_bit_model_are_refused() -> None:
    with (
        pytest.raises(ConfigError, match="set prepare_kbit, or autocast"),
        adapted(method="ia3", quantization="nf4", prepare_kbit=False),
    ):
        pass


def test_embeddings_are_no_linear_layers() -> None:
    with (
        pytest.raises(ConfigError, match="is a Embedding; ia3 takes linear layers"),
        adapted(method="ia3", target_modules=["embed_tokens"]),
    ):
        pass


def test_of_qwen_queries_are_scaled_and_not_keys() -> None:
    with adapted(model={"model_type": "qwen3"}, method="ia3") as (model, _):
        names = [name.split(".")[-2] for name in trainable(model)]
        assert names == ["q_proj", "v_proj", "down_proj"] * LAYERS
