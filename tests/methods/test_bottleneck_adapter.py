from __future__ import annotations

from typing import Any

import pytest

from memplan.counting import checkpoint_bytes
from memplan.errors import UnsupportedError
from memplan.estimate import estimate
from memplan.results import Estimate
from tests.methods.models import HIDDEN, LAYERS, MODEL, adapted, adapter_blocks, trainable

METHOD = "bottleneck_adapter"
RECORDED_MODEL = {
    **{"model_type": "llama", "num_hidden_layers": 3, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "hidden_size": 96, "intermediate_size": 130, "vocab_size": 777},
}


def parameters(factor: int) -> list[int]:
    """Of one adapter, in the order in which they are moved. [elements]"""
    down = HIDDEN // factor
    return [down * HIDDEN, down, HIDDEN * down, HIDDEN]


@pytest.mark.parametrize(
    ("options", "factor", "adapters"),
    [
        ({}, 16, 1),
        ({"config": "seq_bn", "reduction_factor": 8}, 8, 1),
        ({"config": "double_seq_bn"}, 16, 2),
        ({"config": "houlsby", "mh_adapter": False}, 16, 1),
        ({"config": "par_bn"}, 2, 1),
    ],
)
def test_adapters_have_the_models_dtype_without_autocast(
    options: dict[str, Any], factor: int, adapters: int
) -> None:
    with adapted(method=METHOD, peft_config=options) as (model, tape):
        wanted = [2 * n for n in parameters(factor)] * adapters * LAYERS
        assert adapter_blocks(tape) == wanted
        assert checkpoint_bytes(model, METHOD) == sum(wanted)
        assert len(trainable(model)) == len(wanted)


def test_under_autocast_they_are_fp32_unless_told() -> None:
    with adapted(method=METHOD, autocast="bfloat16") as (_, tape):
        assert adapter_blocks(tape)[0] == 4 * parameters(16)[0]
    with adapted(method=METHOD, autocast="bfloat16", adapter_dtype="base") as (_, tape):
        assert adapter_blocks(tape)[0] == 2 * parameters(16)[0]


def recorded(**keys: Any) -> Estimate:
    return estimate(model=RECORDED_MODEL, method=METHOD, gpu="a100-80gb", steps=2, **keys)


def test_peaks_are_those_of_the_library_on_the_virtual_gpu() -> None:
    # adapters 1.3.0, transformers 4.57.6, torch 2.14.1
    pfeiffer = recorded(seq_len=33, micro_batch_size=1)
    houlsby = recorded(
        peft_config={"config": "double_seq_bn"},
        seq_len=33,
        micro_batch_size=3,
        attention_mask="padding",
        activation_checkpointing=True,
    )
    parallel = recorded(
        peft_config={"config": "par_bn"},
        seq_len=65,
        micro_batch_size=3,
        attention="eager",
        dtype="float32",
        autocast="bfloat16",
    )
    peaks = [e.peak_requested_bytes for e in (pfeiffer, houlsby, parallel)]
    assert peaks == [18257408, 18802483, 22730320]
    assert pfeiffer.parameters.trainable == 3762
    assert parallel.checkpoint_bytes == 112320


def test_four_bit_weights_are_moved_before_they_are_packed() -> None:
    load = recorded(seq_len=33, quantization="nf4").phases["load"]
    assert load.peak_requested_bytes == 444_976  # recorded, as above


def test_other_families_are_left_to_the_library() -> None:
    with pytest.raises(UnsupportedError, match="'qwen2' with bottleneck_adapter"):
        estimate(model={**MODEL, "model_type": "qwen2"}, method=METHOD)
