from __future__ import annotations

from typing import Any

import pytest

from memplan.errors import ConfigError, UnsupportedError
from tests.methods.models import HIDDEN, LAYERS, adapted, adapter_blocks, trainable

LENGTH = 7


def config(layers: int) -> dict[str, Any]:
    return {"peft_config": {"adapter_len": LENGTH, "adapter_layers": layers}}


@pytest.mark.parametrize("method", ["llama_adapter", "adaption_prompt"])
def test_the_last_layers_get_a_prompt_and_a_gate_in_the_model_s_dtype(method: str) -> None:
    with adapted(method=method, **config(1)) as (model, tape):
        assert adapter_blocks(tape) == [LENGTH * HIDDEN * 2, 2]
        last = f"model.layers.{LAYERS - 1}.self_attn.adaption_"
        assert trainable(model) == [f"{last}prompt", f"{last}gate"]


def test_beside_packed_projections_they_are_fp32() -> None:
    keys = {"quantization": "int8", "prepare_kbit": False, **config(LAYERS)}
    with adapted(method="llama_adapter", **keys) as (_, tape):
        assert adapter_blocks(tape) == [LENGTH * HIDDEN * 4, 4] * LAYERS


def test_the_paper_s_sizes_are_the_default() -> None:
    with adapted(method="llama_adapter") as (model, _):
        shapes = [p.shape for p in model.parameters() if p.requires_grad]
        assert shapes == [(1, 10, HIDDEN), (1,)] * LAYERS


def test_more_layers_than_there_are_are_refused() -> None:
    with (
        pytest.raises(ConfigError, match="the model has no more layers"),
        adapted(method="llama_adapter", **config(LAYERS + 1)),
    ):
        pass


def test_model_types_that_peft_does_not_adapt_are_refused() -> None:
    with (
        pytest.raises(ConfigError, match="llama and mistral, and no qwen2"),
        adapted(model={"model_type": "qwen2"}, method="llama_adapter"),
    ):
        pass


def test_heads_of_a_width_of_their_own_are_refused() -> None:
    with (
        pytest.raises(ConfigError, match="it does not run on this model"),
        adapted(model={"head_dim": 48}, method="llama_adapter"),
    ):
        pass


def test_other_targets_are_not_modelled() -> None:
    with (
        pytest.raises(UnsupportedError, match="other modules"),
        adapted(method="llama_adapter", target_modules=["mlp"]),
    ):
        pass
