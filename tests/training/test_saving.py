"""What a checkpoint makes on the device."""

from __future__ import annotations

from tests.methods.models import HIDDEN, LAYERS
from tests.training.test_trainer import blocks, tape_of

VIRTUAL = 5
LINEARS = 7  # of a layer, q_proj to down_proj
CODE = 256 * 4  # the values that a byte can stand for


def test_an_adapter_is_read_as_it_is() -> None:
    assert blocks(tape_of(method="lora", save=True), "save", -1) == []


def test_a_soft_prompt_is_made_once_more() -> None:
    sizes = blocks(
        tape_of(method="prompt_tuning", num_virtual_tokens=VIRTUAL, save=True), "save", -1
    )
    assert sizes == [VIRTUAL * 8, VIRTUAL * HIDDEN * 4]


def test_double_quantisation_copies_its_code_for_each_layer() -> None:
    tape = tape_of(method="lora", quantization="nf4-dq", save=True)
    assert blocks(tape, "save", -1) == [CODE] * LINEARS * LAYERS
    assert blocks(tape_of(method="lora", quantization="nf4", save=True), "save", -1) == []
