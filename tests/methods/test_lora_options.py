from __future__ import annotations

from typing import Any

import pytest

from memplan.counting import checkpoint_bytes, count_parameters
from memplan.coverage import why_not_modelled
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.lora import LoraLinear
from memplan.methods.modules_to_save import ModulesToSaveWrapper
from memplan.workload import Workload
from tests.methods.models import (
    HEAD,
    HIDDEN,
    KEY_VALUE_HEADS,
    LAYERS,
    MODEL,
    VOCABULARY,
    adapted,
    adapter_blocks,
    trainable,
)

Json = dict[str, Any]
KV = KEY_VALUE_HEADS * HEAD
RANK = 4
MATRICES = RANK * (HIDDEN + KV) * LAYERS


def test_a_bias_of_b_trains_and_is_cast_while_b_is_still_there() -> None:
    keys: Json = {"rank": RANK, "target_modules": ["v_proj"], "peft_config": {"lora_bias": True}}
    with adapted(method="lora", **keys) as (model, tape):
        layer = next(m for m in model.modules() if isinstance(m, LoraLinear))
        assert layer.lora_B.bias is not None
        assert layer.lora_B.bias.shape == (KV,)
        moved = [RANK * HIDDEN, KV * RANK, KV] * LAYERS
        assert adapter_blocks(tape) == [2 * n for n in moved] + [4 * n for n in moved]


def test_an_embedding_takes_no_bias_of_b() -> None:
    keys: Json = {"target_modules": ["embed_tokens"], "peft_config": {"lora_bias": True}}
    with pytest.raises(ConfigError, match="not supported for embeddings"):
        adapted(method="lora", **keys).__enter__()


def test_a_bias_of_b_wants_the_default_initialisation() -> None:
    config: Json = {"lora_bias": True, "init_lora_weights": "gaussian"}
    with pytest.raises(ConfigError, match="True or False only"):
        Workload(model=MODEL, method="lora", peft_config=config)


def test_further_adapters_are_loaded_and_do_not_train() -> None:
    keys: Json = {"method": "lora", "rank": RANK, "target_modules": ["v_proj"]}
    with adapted(**keys) as (model, _):
        one, names = count_parameters(model), trainable(model)
        saved = checkpoint_bytes(model, "lora")
    with adapted(**keys, adapters=3) as (model, _):
        three = count_parameters(model)
        assert trainable(model) == names
        assert three.total - one.total == 2 * MATRICES
        assert checkpoint_bytes(model, "lora") == saved == 4 * MATRICES


def test_a_further_adapter_has_a_copy_of_what_is_saved() -> None:
    keys: Json = {"method": "lora", "rank": RANK, "modules_to_save": ["lm_head"], "adapters": 2}
    with adapted(**keys) as (model, _):
        (wrapper,) = [m for m in model.modules() if isinstance(m, ModulesToSaveWrapper)]
        assert len(wrapper.further) == 1
        head = 2 * VOCABULARY * HIDDEN
        lora = 4 * RANK * (2 * HIDDEN + HIDDEN + KV) * LAYERS
        assert checkpoint_bytes(model, "lora") == lora + head


def test_several_adapters_go_without_biases() -> None:
    with pytest.raises(ConfigError, match="only one adapter with bias"):
        Workload(model=MODEL, method="lora", adapters=2, bias="all")


@pytest.mark.parametrize("method", ["prompt_tuning", "full"])
def test_only_lora_takes_several_adapters(method: str) -> None:
    with pytest.raises(ConfigError, match="adapters"):
        Workload(model=MODEL, method=method, adapters=2)


def test_tokens_train_beside_the_adapter() -> None:
    config: Json = {"trainable_token_indices": [0, 5, 776]}
    with adapted(method="lora", rank=RANK, peft_config=config) as (model, _):
        name = "model.embed_tokens.trainable_tokens_delta"
        assert name in trainable(model)
    with adapted(method="lora", rank=RANK) as (model, _):
        assert name not in trainable(model)


@pytest.mark.parametrize("tokens", [[], [777], [-1], [True]])
def test_only_tokens_of_the_model_train(tokens: list[int]) -> None:
    with pytest.raises(ConfigError, match="trainable_token_indices"):
        adapted(method="lora", peft_config={"trainable_token_indices": tokens}).__enter__()


def test_tokens_of_what_is_trained_in_full_are_refused() -> None:
    keys: Json = {
        "modules_to_save": ["embed_tokens"],
        "peft_config": {"trainable_token_indices": [1]},
    }
    with pytest.raises(ConfigError, match="give one of them"):
        adapted(method="lora", **keys).__enter__()


def test_tokens_of_adapted_embeddings_are_not_modelled() -> None:
    keys: Json = {
        "target_modules": ["embed_tokens"],
        "peft_config": {"trainable_token_indices": [1]},
    }
    with pytest.raises(UnsupportedError, match="not adapted"):
        adapted(method="lora", **keys).__enter__()


@pytest.mark.parametrize(
    "config",
    [{"layer_replication": [[0, 1]]}, {"target_parameters": ["w"]}, {"kasa_config": {}}],
)
def test_what_is_not_modelled_is_said(config: Json) -> None:
    workload = Workload(model=MODEL, method="rslora", peft_config=config)
    assert next(iter(config)) in (why_not_modelled(workload) or "")


def test_rslora_is_lora_to_the_memory() -> None:
    with adapted(method="lora", rank=RANK) as (_, tape):
        lora = adapter_blocks(tape)
    with adapted(method="rslora", rank=RANK) as (_, tape):
        assert adapter_blocks(tape) == lora


def test_a_tied_head_uses_the_copy_of_the_embeddings_if_asked() -> None:
    keys: Json = {"method": "lora", "rank": RANK, "modules_to_save": ["lm_head"]}
    config: Json = {"ensure_weight_tying": True}
    with adapted(**keys, peft_config=config, model={"tie_word_embeddings": True}) as (model, _):
        names = [name for name in trainable(model) if "lora" not in name]
        assert names == ["model.embed_tokens.modules_to_save.weight"]
    with adapted(**keys, model={"tie_word_embeddings": True}) as (model, _):
        names = [name for name in trainable(model) if "lora" not in name]
        assert names == ["lm_head.modules_to_save.weight"]


def test_tied_adapters_are_not_modelled() -> None:
    config: Json = {"ensure_weight_tying": True}
    keys: Json = {"peft_config": config, "model": {"tie_word_embeddings": True}}
    with pytest.raises(UnsupportedError, match="ensure_weight_tying"):
        adapted(method="lora", target_modules=["lm_head"], **keys).__enter__()


def test_pissa_leaves_the_rest_of_the_weight_in_a_new_block() -> None:
    keys: Json = {
        "method": "lora",
        "rank": RANK,
        "target_modules": ["v_proj"],
        "adapter_dtype": "base",
    }
    config: Json = {"init_lora_weights": "pissa"}
    with adapted(**keys, model={"num_hidden_layers": 1}, peft_config=config) as (_, tape):
        blocks = adapter_blocks(tape)
    weight = KV * HIDDEN
    # in fp32: the weight, V of the decomposition, the copy of it, the update and the rest
    assert blocks.count(4 * weight) == 5
    assert blocks[-3:] == [2 * weight, 2 * RANK * HIDDEN, 2 * RANK * KV]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"quantization": "nf4"}, "16 or 32 bits"),
        ({"target_modules": ["embed_tokens"]}, "linear layers only"),
    ],
)
def test_pissa_goes_where_peft_has_it(keys: Json, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        adapted(method="lora", peft_config={"init_lora_weights": "pissa"}, **keys).__enter__()


def test_an_orthogonal_start_wants_an_even_rank() -> None:
    config: Json = {"init_lora_weights": "orthogonal"}
    with pytest.raises(ConfigError, match="even"):
        adapted(method="lora", rank=3, peft_config=config).__enter__()


def test_olora_factors_the_weight_and_changes_it_in_place() -> None:
    keys: Json = {
        "method": "lora",
        "rank": RANK,
        "target_modules": ["v_proj"],
        "adapter_dtype": "base",
    }
    config: Json = {"init_lora_weights": "olora"}
    with adapted(**keys, model={"num_hidden_layers": 1}, peft_config=config) as (_, tape):
        blocks = adapter_blocks(tape)
    weight = KV * HIDDEN
    # in fp32: the weight, R and the update
    assert blocks.count(4 * weight) == 3
    assert blocks[-3:] == [2 * weight, 2 * RANK * HIDDEN, 2 * RANK * KV]


def test_olora_over_a_quantised_base_is_not_modelled() -> None:
    config: Json = {"init_lora_weights": "olora"}
    with pytest.raises(UnsupportedError, match="quantised"):
        adapted(method="lora", quantization="nf4", peft_config=config).__enter__()
