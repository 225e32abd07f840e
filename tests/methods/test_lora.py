from __future__ import annotations

import pytest

from memplan.dtypes import BF16, FP32
from memplan.errors import ConfigError
from memplan.methods.lora import LoraEmbedding, LoraLinear
from tests.methods.models import (
    HEAD,
    HIDDEN,
    KEY_VALUE_HEADS,
    LAYERS,
    VOCABULARY,
    adapted,
    adapter_blocks,
    trainable,
)

KV = KEY_VALUE_HEADS * HEAD


def test_adapters_arrive_in_the_base_dtype_and_are_then_cast_one_by_one() -> None:
    with adapted(method="lora", rank=4) as (_, tape):
        q, v = [4 * HIDDEN, HIDDEN * 4], [4 * HIDDEN, KV * 4]
        moved = [2 * n for n in (q + v) * LAYERS]
        cast = [4 * n for n in (q + v) * LAYERS]
        assert adapter_blocks(tape) == moved + cast


def test_adapters_keep_the_base_dtype_if_asked() -> None:
    with adapted(method="lora", rank=4, adapter_dtype="base") as (model, tape):
        assert len(adapter_blocks(tape)) == 4 * LAYERS
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {BF16}


def test_only_adapters_train() -> None:
    with adapted(method="lora", target_modules=["o_proj"]) as (model, _):
        prefix = [f"model.layers.{i}.self_attn.o_proj" for i in range(LAYERS)]
        assert trainable(model) == [
            f"{p}.{ab}.weight" for p in prefix for ab in ("lora_A", "lora_B")
        ]


def test_a_rank_above_the_matrix_is_legal() -> None:
    with adapted(method="lora", rank=5000, target_modules=["v_proj"]) as (model, _):
        layers = [m for m in model.modules() if isinstance(m, LoraLinear)]
        assert [m.lora_B.weight.shape for m in layers] == [(KV, 5000)] * LAYERS


def test_an_embedding_gets_matrices_of_its_own_shape() -> None:
    with adapted(method="lora", rank=4, target_modules=["embed_tokens"]) as (model, _):
        (layer,) = [m for m in model.modules() if isinstance(m, LoraEmbedding)]
        assert layer.lora_embedding_A.shape == (4, VOCABULARY)
        assert layer.lora_embedding_B.shape == (HIDDEN, 4)
        assert layer.lora_embedding_A.dtype is FP32


def test_bias_all_trains_every_bias_and_lora_only_those_of_adapted_layers() -> None:
    biased = {"attention_bias": True}
    with adapted(method="lora", bias="all", model=biased) as (model, _):
        assert sum(name.endswith("bias") for name in trainable(model)) == 4 * LAYERS
    with adapted(method="lora", bias="lora_only", model=biased) as (model, _):
        assert sum(name.endswith("bias") for name in trainable(model)) == 2 * LAYERS


def test_targets_that_match_nothing_are_an_error() -> None:
    with pytest.raises(ConfigError, match="match no module"):
        adapted(method="lora", target_modules=["query_key_value"]).__enter__()


@pytest.mark.parametrize(
    ("target", "kind"), [("input_layernorm", "RMSNorm"), (r".*\.mlp\..+", "SiLU")]
)
def test_only_linear_layers_and_embeddings_can_be_adapted(target: str, kind: str) -> None:
    targets = target if "*" in target else [target]
    with pytest.raises(ConfigError, match=kind):
        adapted(method="lora", target_modules=targets).__enter__()
