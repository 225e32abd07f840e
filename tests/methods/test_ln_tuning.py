from __future__ import annotations

import pytest

from memplan.errors import ConfigError, UnsupportedError
from tests.methods.models import HIDDEN, LAYERS, adapted, adapter_blocks, trainable


def test_each_norm_gets_a_trained_copy_in_the_model_s_dtype() -> None:
    with adapted(method="ln_tuning") as (model, tape):
        norms = 2 * LAYERS + 1
        assert adapter_blocks(tape) == [HIDDEN * 2] * norms
        names = trainable(model)
        assert len(names) == norms
        assert "model.norm.ln_tuning_layers.weight" in names


def test_of_qwen_only_the_norms_before_the_mlp_are_copied() -> None:
    with adapted(model={"model_type": "qwen2"}, method="ln_tuning") as (model, _):
        assert trainable(model) == [
            f"model.layers.{i}.post_attention_layernorm.ln_tuning_layers.weight"
            for i in range(LAYERS)
        ]


def test_the_original_stays_frozen_and_idle() -> None:
    with adapted(method="ln_tuning", target_modules=["norm"]) as (model, _):
        original, copy = (p for name, _, _, p in model.named_parameters() if ".norm." in name)
        assert (copy.requires_grad, original.requires_grad) == (True, False)
        assert copy.storage is not original.storage


def test_targets_that_match_nothing_are_refused() -> None:
    with (
        pytest.raises(ConfigError, match="match no module"),
        adapted(method="ln_tuning", target_modules=["layernorms"]),
    ):
        pass


def test_what_is_no_norm_is_not_modelled() -> None:
    with (
        pytest.raises(UnsupportedError, match=r"v_proj is no norm"),
        adapted(method="ln_tuning", target_modules=["v_proj"]),
    ):
        pass
