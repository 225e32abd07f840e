"""The reparameterisations beside LoRA: what trains, what arrives on the device, what is refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from memplan.counting import checkpoint_bytes, count_parameters
from memplan.dtypes import BF16, FP32
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.lokr import factorization
from memplan.methods.oft import fitting_block_size
from memplan.methods.tuners import METHODS
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
RANK = 4
Q, V = (HIDDEN, HIDDEN), (KV, HIDDEN)  # (out_features, in_features)


def low_rank(out: int, inner: int) -> int:
    """Elements of two low-rank factors."""
    return RANK * (out + inner)


def rotation(block: int) -> int:
    """Elements above the diagonals of the blocks of one rotation of the input."""
    return HIDDEN // block * block * (block - 1) // 2


# Of both adapted layers, q_proj and v_proj, together.
TRAINABLE = {
    "adalora": sum(low_rank(*s) + RANK + 1 for s in (Q, V)),  # singular values, ranknum
    "loha": sum(2 * low_rank(*s) for s in (Q, V)),
    # 96 = 8 x 12, 32 = 4 x 8; the large factor is low-rank below half of its larger side.
    "lokr": (8 * 8 + RANK * (12 + 12)) + (4 * 8 + RANK * (8 + 12)),
    "vera": (HIDDEN + RANK) + (KV + RANK),
    "pvera": (HIDDEN + 2 * RANK) + (KV + 2 * RANK),
    "oft": 2 * rotation(32),
    "miss": RANK * (HIDDEN + KV),
    "gralora": RANK * (HIDDEN + HIDDEN + HIDDEN + KV),
    "road": 2 * (HIDDEN // 2 + KV // 2),
    "delora": sum(low_rank(*s) + 1 for s in (Q, V)),
    "glora": sum(2 * low_rank(*s) for s in (Q, V)),
    "hira": sum(low_rank(*s) for s in (Q, V)),
    "peanut": RANK * (2 * HIDDEN + 2 * KV),
    "hra": 2 * RANK * HIDDEN,
    # As many bases as the smaller side holds ranks: of each a number a rank, and a vector.
    "randlora": (HIDDEN // RANK) * (RANK + HIDDEN) + (KV // RANK) * (RANK + KV),
    "tinylora": 2 * 64,
    "deft": sum(low_rank(*s) for s in (Q, V)),
    "psoft": 2 * (RANK * (RANK - 1) // 2 + 2 * RANK),
}
# Those whose layers share what trains: of all layers together.
SHARED = {
    # A and a router in each layer, and B, twice, once for all.
    "lily": RANK * (LAYERS * (2 * HIDDEN + 2 * 2) + 2 * HIDDEN + 2 * KV),
    # A row of 256 logits for each vector of 32, and the bank.
    "vblora": 256 * (RANK * LAYERS * (2 * HIDDEN + HIDDEN + KV) // 32 + 32),
}
OPTIONS = {
    "road": {"group_size": 8},
    "psoft": {"use_cayley_neumann": True},
    "vblora": {"vector_length": 32},
}


UNRANKED = ("oft", "road")


def keys(method: str) -> dict[str, Any]:
    """A workload of a method, with a rank if it takes one."""
    options = {"peft_config": OPTIONS[method]} if method in OPTIONS else {}
    return {"method": method} | options | ({} if method in UNRANKED else {"rank": RANK})


def test_every_method_has_a_count_here() -> None:
    assert set(TRAINABLE) | set(SHARED) == set(METHODS)


@pytest.mark.parametrize("method", TRAINABLE)
def test_what_trains(method: str) -> None:
    with adapted(**keys(method)) as (model, _):
        assert count_parameters(model).trainable == TRAINABLE[method] * LAYERS


@pytest.mark.parametrize("method", SHARED)
def test_what_trains_in_all_layers_together(method: str) -> None:
    with adapted(**keys(method)) as (model, _):
        assert count_parameters(model).trainable == SHARED[method]


@pytest.mark.parametrize("method", TRAINABLE)
def test_adapters_arrive_in_the_base_dtype_and_are_then_cast_up(method: str) -> None:
    with adapted(**keys(method)) as (model, tape):
        floats = [p for p in model.parameters() if p.requires_grad]
        assert {p.dtype for p in floats} == {FP32}
        blocks = adapter_blocks(tape)
        assert sum(blocks) >= (BF16.itemsize + FP32.itemsize) * TRAINABLE[method] * LAYERS


def test_the_checkpoint_of_adalora_leaves_the_rank_out() -> None:
    with adapted(method="adalora", rank=RANK) as (model, _):
        saved = count_parameters(model).trainable - 2 * LAYERS
        assert checkpoint_bytes(model, "adalora") == FP32.itemsize * saved
        assert sum(name.endswith("ranknum.default") for name in trainable(model)) == 2 * LAYERS


def test_the_checkpoint_of_vera_holds_its_matrices_once_if_asked() -> None:
    shared = RANK * (HIDDEN + HIDDEN)  # A as wide as the widest input, B as tall as the output
    for saves, extra in ((True, shared), (False, 0)):
        options = {"save_projection": saves}
        with adapted(method="vera", rank=RANK, peft_config=options) as (model, _):
            trained = count_parameters(model).trainable
            assert checkpoint_bytes(model, "vera") == FP32.itemsize * (trained + extra)


def test_vera_moves_its_matrices_with_the_first_layer() -> None:
    with adapted(method="vera", rank=RANK, target_modules=["q_proj"]) as (_, tape):
        vectors, matrix = [HIDDEN, RANK], RANK * HIDDEN
        order = [*vectors, matrix, matrix, *vectors * (LAYERS - 1)]
        moved, cast = ([size * n for n in order] for size in (BF16.itemsize, FP32.itemsize))
        assert adapter_blocks(tape) == moved + cast


def test_loha_makes_both_products_and_the_weight_in_each_forward() -> None:
    weight = FP32.itemsize * HIDDEN * HIDDEN
    blocks = forward_blocks(
        method="loha", rank=RANK, target_modules=["q_proj"], seq_len=7, gpu="a100-80gb"
    )
    places = [i for i, nbytes in enumerate(blocks) if nbytes == weight]
    assert len(places) == 4 * LAYERS  # two products, their product, scaled
    assert sum(b - a == 1 for a, b in pairwise(places)) == 3 * LAYERS


def test_oft_shares_one_block_if_asked() -> None:
    options = {"oft_block_size": 16, "block_share": True}
    with adapted(method="oft", peft_config=options) as (model, _):
        assert count_parameters(model).trainable == 2 * LAYERS * 16 * 15 // 2


def test_oft_takes_the_divisor_nearest_to_the_block_size() -> None:
    assert [fitting_block_size(HIDDEN, n) for n in (17, 20, 28, 200)] == [16, 16, 24, HIDDEN]


def test_lokr_splits_a_size_near_its_root_or_by_a_factor() -> None:
    assert [factorization(n) for n in (96, 127, 1)] == [(8, 12), (1, 127), (1, 1)]
    assert [factorization(96, n) for n in (2, 16, 7)] == [(2, 48), (16, 6), (6, 16)]


def test_miss_repeats_a_narrow_matrix() -> None:
    options = {"init_weights": "mini", "mini_r": 8}
    with adapted(method="miss", rank=RANK, peft_config=options) as (model, _):
        assert count_parameters(model).trainable == 2 * LAYERS * RANK * 8


def test_miss_makes_square_blocks_for_bat() -> None:
    options = {"init_weights": "bat"}
    with adapted(method="miss", rank=8, peft_config=options) as (model, _):
        assert count_parameters(model).trainable == LAYERS * (HIDDEN + KV) * 8
    with (
        pytest.raises(ConfigError, match="square blocks"),
        adapted(method="miss", rank=7, peft_config=options),
    ):
        pass


def test_glora_may_train_a_number_for_each_output() -> None:
    with adapted(method="glora", peft_config={"config_A_B": "vector"}) as (model, _):
        assert count_parameters(model).trainable == LAYERS * 2 * (HIDDEN + KV)


@pytest.mark.parametrize("method", ["loha", "lokr"])
def test_packed_weights_are_refused_where_peft_fails_on_them(method: str) -> None:
    with pytest.raises(ConfigError, match="packed"), adapted(**keys(method), quantization="nf4"):
        pass


def test_a_rank_above_the_inputs_is_refused_by_miss() -> None:
    with pytest.raises(ConfigError, match="above the 96 inputs"), adapted(method="miss", rank=97):
        pass


def test_adalora_has_no_default_targets_for_mistral() -> None:
    with (
        pytest.raises(ConfigError, match="no default of adalora for mistral"),
        adapted(method="adalora", model={"model_type": "mistral"}),
    ):
        pass


def test_an_embedding_is_for_the_virtual_engine() -> None:
    with (
        pytest.raises(UnsupportedError, match="only linear layers"),
        adapted(**keys("oft"), target_modules=["embed_tokens"]),
    ):
        pass


def test_targets_in_the_mlp_are_adapted_too() -> None:
    with adapted(method="hira", rank=RANK, target_modules=["down_proj"]) as (model, _):
        assert count_parameters(model).trainable == LAYERS * low_rank(HIDDEN, MLP)


def test_a_layer_may_have_a_rank_of_its_own_and_others_none() -> None:
    options = {"rank_pattern": {"q_proj": 2}, "layers_to_transform": [1]}
    with adapted(method="loha", rank=RANK, peft_config=options) as (model, _):
        assert count_parameters(model).trainable == 2 * 2 * (HIDDEN + HIDDEN) + 2 * low_rank(*V)


def test_lily_shares_an_a_for_some_layers() -> None:
    for stride, blocks in ((1, LAYERS), (LAYERS, 1)):
        with adapted(method="lily", rank=RANK, peft_config={"stride_A": stride}) as (model, _):
            shared = RANK * (LAYERS * 2 * 2 + 2 * HIDDEN + 2 * KV)
            assert count_parameters(model).trainable == shared + blocks * RANK * 2 * HIDDEN


def test_tinylora_shares_its_numbers_between_layers_if_asked() -> None:
    for tying, vectors in ((0.0, 2 * LAYERS), (1.0, 1)):
        options = {"weight_tying": tying, "u": 5}
        with adapted(method="tinylora", rank=2, peft_config=options) as (model, _):
            assert count_parameters(model).trainable == 5 * vectors


def test_the_checkpoint_of_tinylora_holds_its_directions_and_its_matrices_if_asked() -> None:
    directions = LAYERS * sum(low_rank(*s) for s in (Q, V))
    for saves, matrices in ((True, LAYERS * 2 * 64 * RANK * RANK), (False, 0)):
        options = {"save_projection": saves}
        with adapted(method="tinylora", rank=RANK, peft_config=options) as (model, _):
            trained = count_parameters(model).trainable
            assert checkpoint_bytes(model, "tinylora") == 4 * (trained + directions + matrices)


def test_the_checkpoint_of_randlora_holds_its_bases_once_if_asked() -> None:
    bases = RANK * HIDDEN + HIDDEN * (HIDDEN // RANK) * RANK  # the smaller and the larger
    for saves, extra in ((True, bases), (False, 0)):
        options = {"save_projection": saves}
        with adapted(method="randlora", rank=RANK, peft_config=options) as (model, _):
            trained = count_parameters(model).trainable
            assert checkpoint_bytes(model, "randlora") == FP32.itemsize * (trained + extra)


def test_deft_only_takes_a_subspace_away_for_para() -> None:
    with adapted(method="deft", rank=RANK, peft_config={"para": True}) as (model, _):
        assert count_parameters(model).trainable == LAYERS * RANK * (HIDDEN + KV)


def test_peanut_has_an_encoder_and_a_decoder_for_each_depth() -> None:
    with adapted(method="peanut", rank=RANK, peft_config={"depth": 3}) as (model, _):
        inner = 2 * 2 * 3 * RANK * RANK
        assert count_parameters(model).trainable == LAYERS * (TRAINABLE["peanut"] + inner)


def test_vectors_that_do_not_fit_are_refused_by_vblora() -> None:
    with pytest.raises(ConfigError, match="vector_length"), adapted(method="vblora"):
        pass


def test_so_many_vectors_that_topk_borrows_are_for_the_virtual_engine() -> None:
    options = {"vector_length": 32, "num_vectors": 20000}
    with (
        pytest.raises(UnsupportedError, match="num_vectors"),
        adapted(method="vblora", rank=1, peft_config=options),
    ):
        pass


NOT_QUANTISED = ("peanut", "hra", "randlora", "lily", "tinylora", "deft", "psoft", "vblora")


@pytest.mark.parametrize("method", NOT_QUANTISED)
def test_quantised_layers_are_for_the_virtual_engine(method: str) -> None:
    with (
        pytest.raises(UnsupportedError, match="quantised"),
        adapted(**keys(method), quantization="nf4"),
    ):
        pass


def test_a_key_that_a_method_has_not_is_refused() -> None:
    for method, key in (("vera", "exclude_modules"), ("oft", "rank_pattern"), ("road", "alpha")):
        given = keys(method) | {"peft_config": {key: 1}}
        with pytest.raises(ConfigError, match=key), adapted(**given):
            pass
