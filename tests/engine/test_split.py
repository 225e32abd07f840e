"""Operators with several outputs: one node, which waits for all of them."""

from __future__ import annotations

from memplan.dtypes import FP32
from memplan.engine import Kernels, Tape, Tensor, backward, empty, run
from memplan.engine.ops.pointwise import mul, scale
from memplan.engine.ops.split import split, unbind

ROW = 8 * 4


def leaf(rows: int) -> Tensor:
    """A leaf of so many rows of 8 fp32 numbers that wants a gradient."""
    t = empty((rows, 8), FP32)
    t.requires_grad = True
    return t


def blocks_of(tape: Tape, start: int) -> list[int]:
    """What was allocated from an event on. [bytes]"""
    return [e for e in tape.events[start:] if e > 0]


def test_parts_are_views_and_their_gradients_are_joined() -> None:
    with run(Tape(), Kernels()) as tape:
        x = leaf(4)
        start = len(tape.events)
        a, b = split(x, 2)
        assert a.shape == b.shape == (2, 8)
        assert blocks_of(tape, start) == []
        out = mul(a, b)
        start = len(tape.events)
        backward(out)
        root, of_b, of_a, joined = blocks_of(tape, start)
        assert root == of_b == of_a == 2 * ROW
        assert joined == 4 * ROW
        assert x.grad is not None
        assert x.grad.shape == (4, 8)


def test_a_part_without_a_gradient_gives_zeros() -> None:
    with run(Tape(), Kernels()) as tape:
        x = leaf(4)
        a, _ = split(x, 2)
        out = scale(a)
        start = len(tape.events)
        backward(out)
        assert blocks_of(tape, start) == [2 * ROW, 2 * ROW, 2 * ROW, 4 * ROW]


def test_unbound_rows_without_a_gradient_need_one_number() -> None:
    with run(Tape(), Kernels()) as tape:
        x = leaf(2)
        a, _ = unbind(x)
        assert a.shape == (8,)
        out = scale(a)
        start = len(tape.events)
        backward(out)
        assert blocks_of(tape, start) == [ROW, ROW, 4, 2 * ROW]


def test_nothing_of_the_gradients_stays() -> None:
    with run(Tape(), Kernels()) as tape:
        x = leaf(4)
        outs = split(x, 2)
        backward(mul(*outs))
        live = sum(e for e in tape.events if e > 0)
        live -= sum(tape.events[~e] for e in tape.events if e < 0)
        assert live == 2 * 4 * ROW  # the leaf and its gradient
