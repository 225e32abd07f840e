from __future__ import annotations

from typing import Any

import pytest

import memplan
from memplan.results import TradeOffs
from memplan.running import Run
from memplan.trade_offs import counted, flops
from memplan.workload import Workload

# One layer's linear weights: q and o 64 x 64, k and v 32 x 64, gate, up and down 96 x 64.
HIDDEN, HEAD, INTERMEDIATE, VOCAB, LAYERS, TOKENS = 64, 16, 96, 500, 5, 2 * 32
LINEARS = 2 * HIDDEN * HIDDEN + 2 * 2 * HEAD * HIDDEN + 3 * INTERMEDIATE * HIDDEN
MODEL = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
}
SCORES = 2 * 2 * 4 * 32 * 32 * HEAD  # one product of queries and keys: 2 FLOPs, B, H, N, M, D
ROTARY = HEAD * 32


def costs(**keys: Any) -> TradeOffs:
    found = memplan.estimate(model=MODEL, micro_batch_size=2, seq_len=32, **keys).trade_offs
    assert found is not None
    return found


def run_of(**keys: Any) -> Run:
    return Run.of(Workload(model=MODEL, micro_batch_size=2, seq_len=32, **keys))


def test_full_computes_three_times_its_linears_and_seven_products_of_attention() -> None:
    linears = 2 * TOKENS * (LAYERS * LINEARS + VOCAB * HIDDEN)
    assert costs(method="full").training_flops == 3 * linears + LAYERS * 7 * SCORES + ROTARY


def test_a_frozen_model_computes_a_forward_only() -> None:
    linears = 2 * TOKENS * (LAYERS * LINEARS + VOCAB * HIDDEN)
    assert costs(method="frozen").training_flops == linears + LAYERS * 2 * SCORES + ROTARY


def test_lora_adds_its_two_matrices_and_spares_the_weights_gradients() -> None:
    found, rank = costs(method="lora", rank=4), 4
    adapters = LAYERS * rank * (2 * HIDDEN + HIDDEN + 2 * HEAD)  # q_proj and v_proj
    assert found.inference_parameters == adapters
    base = costs(method="frozen").training_flops
    assert found.inference_flops_share == pytest.approx(2 * TOKENS * adapters / base)
    assert 1 / 3 < found.training_flops_share < 1
    assert found.merges


def test_virtual_tokens_take_their_place_in_the_context() -> None:
    found = costs(method="prompt_tuning", num_virtual_tokens=7)
    assert found.context_tokens == 7
    assert found.inference_parameters == 7 * HIDDEN
    assert found.inference_flops_share > 7 / 32
    assert not found.merges


def test_checkpointing_runs_the_layers_twice() -> None:
    plain, again = costs(method="full"), costs(method="full", activation_checkpointing=True)
    down_proj = INTERMEDIATE * HIDDEN  # the last product of a layer saves nothing: never run again
    layer = 2 * TOKENS * (LINEARS - down_proj) + 2 * SCORES
    assert again.training_flops == plain.training_flops + LAYERS * layer


@pytest.mark.parametrize("keys", [{"method": "lora"}, {"activation_checkpointing": "reentrant"}])
def test_three_layers_tell_what_all_do(keys: dict[str, Any]) -> None:
    assert flops(run_of(**keys)) == counted(run_of(**keys), LAYERS)


def test_a_quantised_base_computes_the_same() -> None:
    plain, packed = costs(method="lora"), costs(method="lora", quantization="nf4")
    assert packed.training_flops == plain.training_flops
    assert packed.inference_parameters == plain.inference_parameters
