from __future__ import annotations

import pytest

from memplan.errors import ConfigError
from tests.methods.models import HEAD, KEY_VALUE_HEADS, LAYERS, adapted, adapter_blocks, trainable

KV = KEY_VALUE_HEADS * HEAD


def test_values_get_a_bias_made_in_the_base_dtype_and_cast() -> None:
    with adapted(method="beft") as (model, tape):
        assert adapter_blocks(tape) == [KV * 2] * LAYERS + [KV * 4] * LAYERS
        names = [f"model.layers.{i}.self_attn.v_proj.beft_bias" for i in range(LAYERS)]
        assert trainable(model) == names


def test_embeddings_are_no_linear_layers() -> None:
    with (
        pytest.raises(ConfigError, match="beft takes linear layers"),
        adapted(method="beft", target_modules=["embed_tokens"]),
    ):
        pass
