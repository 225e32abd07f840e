from __future__ import annotations

from typing import Any

import pytest

from memplan.engine.kernels import Kernels
from memplan.engine.repeat import Depth
from memplan.engine.state import run
from memplan.engine.tape import Tape
from memplan.errors import ConfigError
from memplan.models.config import load_model_config
from memplan.running import finds_in_every_layer
from memplan.training import train
from memplan.workload import Workload
from tests.methods.models import HIDDEN, LAYERS, MLP, MODEL, VOCABULARY, adapted, trainable

QWEN2 = {"model_type": "qwen2"}  # biases on queries, keys and values
TIED = {"tie_word_embeddings": True}
PROJECTIONS = tuple(f"self_attn.{x}_proj" for x in "qkvo")
MLPS = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")


def layer(i: int) -> list[str]:
    """Every parameter of a decoder layer."""
    return [f"model.layers.{i}.{name}.weight" for name in (*PROJECTIONS, *MLPS, *NORMS)]


def saved_after_forward(**keys: Any) -> int:
    """Bytes that a forward leaves, above what stood before it. [bytes]"""
    workload = Workload.resolve({"model": MODEL, "steps": 1, "seq_len": 64, **keys})[0]
    config = load_model_config(workload.model)
    with run(Tape(), Kernels()) as tape:
        train(workload, config, Depth.unrolled(config.num_hidden_layers), 1)
        ends = {p.name: p.end for p in tape.phases}
        events = tape.events
        forward = events[ends["optimizer_init"] : ends["forward"]]
        return sum(e if e >= 0 else -events[~e] for e in forward)


def test_bitfit_trains_every_bias_and_nothing_else() -> None:
    with adapted(model=QWEN2, method="bitfit") as (model, _):
        names = [f"model.layers.{i}.self_attn.{x}_proj.bias" for i in range(LAYERS) for x in "qkv"]
        assert trainable(model) == names


def test_bitfit_of_a_model_without_biases_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"no bias at all.*ln_tuning"), adapted(method="bitfit"):
        pass


def test_the_last_layers_train_with_the_norm_and_the_head() -> None:
    with adapted(method="last_layers", num_trainable_layers=1) as (model, _):
        assert trainable(model) == [*layer(LAYERS - 1), "model.norm.weight", "lm_head.weight"]


def test_a_tied_head_stays_frozen_beside_the_last_layers() -> None:
    with adapted(model=TIED, method="last_layers", num_trainable_layers=1) as (model, _):
        assert trainable(model) == [*layer(LAYERS - 1), "model.norm.weight"]


def test_more_last_layers_than_there_are_are_refused() -> None:
    keys: dict[str, Any] = {"method": "last_layers", "num_trainable_layers": LAYERS + 1}
    with pytest.raises(ConfigError, match="above the model's 2 layers"), adapted(**keys):
        pass


def test_embeddings_train_alone_and_with_a_tied_head() -> None:
    for model_keys in ({}, TIED):
        with adapted(model=model_keys, method="embeddings_only") as (model, _):
            assert trainable(model) == ["model.embed_tokens.weight"]


def test_trainable_patterns_are_searched_for_in_the_names() -> None:
    with adapted(trainable=[r"layers\.1\.mlp", "norm"]) as (model, _):
        names = trainable(model)
    mlps = [f"model.layers.1.{name}.weight" for name in MLPS]
    norms = [f"model.layers.{i}.{name}.weight" for i in range(LAYERS) for name in NORMS]
    assert sorted(names) == sorted([*mlps, *norms, "model.norm.weight"])


def test_a_pattern_that_finds_nothing_is_refused_with_near_names() -> None:
    with (
        pytest.raises(ConfigError, match=r"matches no parameter.*Did you mean 'lm_head.weight'"),
        adapted(trainable=["lm_haed.weight"]),
    ):
        pass


def test_a_packed_weight_cannot_train() -> None:
    keys: dict[str, Any] = {
        "method": "last_layers",
        "num_trainable_layers": 1,
        "quantization": "nf4",
    }
    with (
        pytest.raises(ConfigError, match=r"layers\.1\.self_attn\.q_proj\.weight cannot train"),
        adapted(**keys),
    ):
        pass


def test_norms_of_a_quantised_model_train_in_fp32() -> None:
    keys: dict[str, Any] = {"method": "full", "trainable": ["norm"], "quantization": "nf4"}
    with adapted(**keys) as (model, _):
        chosen = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype.name for p in chosen} == {"float32"}
    assert sum(p.shape[0] for p in chosen) == (2 * LAYERS + 1) * HIDDEN


def test_only_full_takes_patterns() -> None:
    with pytest.raises(ConfigError, match="trainable: the method lora takes none"):
        Workload(model=MODEL, method="lora", trainable=("norm",))
    with pytest.raises(ConfigError, match="is no regular expression"):
        Workload(model=MODEL, trainable=("(",))


def test_a_comma_parts_patterns_unless_it_stands_in_braces() -> None:
    workload, _ = Workload.resolve(model=MODEL, trainable="norm, [0-9]{1,2}")
    assert workload.trainable == ("norm", "[0-9]{1,2}")


def test_nothing_is_kept_below_the_lowest_parameter_that_trains() -> None:
    head = saved_after_forward(trainable=["lm_head"])
    norm = saved_after_forward(trainable=[r"\.norm\."])
    last = saved_after_forward(method="last_layers", num_trainable_layers=1)
    both = saved_after_forward(method="last_layers", num_trainable_layers=2)
    assert head <= norm < last < both
    frozen_below = saved_after_forward(trainable=[r"layers\.1\."])
    assert frozen_below < saved_after_forward(trainable=[r"layers\.0\."])


def test_layers_that_a_pattern_tells_apart_are_not_alike() -> None:
    assert finds_in_every_layer("norm", 30)
    assert finds_in_every_layer(r"layers\.\d+\.mlp", 30)
    assert not finds_in_every_layer(r"layers\.\d\.", 30)  # one digit
    assert not finds_in_every_layer(r"layers\.3\.", 30)


def test_sizes_of_the_small_model_hold() -> None:
    with adapted(method="embeddings_only") as (model, _):
        (table,) = [p for p in model.parameters() if p.requires_grad]
        assert table.shape == (VOCABULARY, HIDDEN)
    with adapted(trainable=["gate_proj"]) as (model, _):
        assert {p.shape for p in model.parameters() if p.requires_grad} == {(MLP, HIDDEN)}
