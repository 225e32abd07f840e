"""Operators of the reparameterisations: what they allocate, forward and backward, in order."""

from __future__ import annotations

from collections.abc import Callable

from memplan.dtypes import BF16, BOOL, FP32
from memplan.engine import Tensor, autocast, empty
from memplan.engine.autograd import run_from
from memplan.engine.kernels import Kernels
from memplan.engine.ops.arithmetic import add_, clamp_min, div, sub
from memplan.engine.ops.einsum import repeat_columns, rotate_blocks, sum_middle
from memplan.engine.ops.linalg import linear, matmul
from memplan.engine.ops.norm import norms
from memplan.engine.ops.pointwise import pad_last
from memplan.engine.ops.rotate import cos, repeat_rows, select, stack_pair
from memplan.engine.ops.views import view
from memplan.engine.state import run
from memplan.engine.tape import Tape

F, H = FP32.itemsize, BF16.itemsize


def leaf(*shape: int) -> Tensor:
    """A tensor that wants a gradient."""
    t = empty(shape, FP32)
    t.requires_grad = True
    return t


def blocks(make: Callable[[], Tensor]) -> tuple[list[int], list[int]]:
    """What an operator allocates forward, and backward below a gradient; no cuBLAS workspaces."""
    with run(Tape(), Kernels()) as tape:
        tape_start = len(tape.events)
        out = make()
        forward = len(tape.events)
        run_from(out, empty(out.shape, out.dtype))
        events = tape.events
        workspace = Kernels().cublas_workspace_bytes
        ends = (tape_start, forward), (forward, len(events))
        first, second = ([e for e in events[a:b] if 0 <= e != workspace] for a, b in ends)
        return first, second[1:]  # without the gradient that was given


def test_a_quotient_by_what_trains_makes_four_tensors_of_its_size() -> None:
    x, y = 6 * F, 1 * F
    forward, backward = blocks(lambda: div(leaf(2, 3), leaf(1)))
    assert forward == [x, y, x]
    assert backward == [x, x, x, x, x, y]  # twice divided, negated, their product; self; the sum


def test_a_difference_negates_for_the_right_operand() -> None:
    # The left one's gradient is the given one, which is held outside, so the leaf keeps a copy.
    assert blocks(lambda: sub(leaf(2, 3), leaf(2, 3)))[1] == [6 * F, 6 * F]


def test_adding_in_place_makes_nothing_unless_to_a_view() -> None:
    assert blocks(lambda: add_(div(leaf(4), leaf(4)), leaf(4)))[0] == [16] * 4
    forward, backward = blocks(lambda: add_(view(leaf(2, 2), (4,)), leaf(4)))
    assert forward == [16, 16]
    assert backward == [16, 16, 16]  # zeros, a copy of the base's gradient, a clone of the slice


def test_a_norm_along_a_dimension_and_its_clamp() -> None:
    forward, backward = blocks(lambda: clamp_min(norms(leaf(2, 3), 1)))
    assert forward == [6 * F, 2 * F, 2 * F]
    clamp = [F, 2 * BOOL.itemsize, 2 * F]
    assert backward == [*clamp, 6 * F, 2 * BOOL.itemsize, 6 * F]


def test_rotated_blocks_are_one_batched_product() -> None:
    x, q = 2 * 3 * 8 * F, 2 * 4 * 4 * F

    def rotated() -> Tensor:
        return rotate_blocks(view(leaf(2, 3, 8), (2, 3, 2, 4)), leaf(2, 4, 4))

    forward, backward = blocks(rotated)
    assert forward == [x, q, x]
    assert backward[:3] == [q, x, x]  # blocks, input by blocks, input in order


def test_a_sum_over_shards_hands_on_a_view_that_is_then_copied() -> None:
    forward, backward = blocks(lambda: sum_middle(view(leaf(2, 3, 8), (2, 3, 4, 2))))
    assert forward == [48 * F, 12 * F]
    assert backward == [48 * F]


def test_padding_and_repeating() -> None:
    assert blocks(lambda: pad_last(leaf(2, 3), 4)) == ([6 * F, 8 * F], [6 * F])
    assert blocks(lambda: repeat_columns(leaf(2, 3), 4)) == ([6 * F, 24 * F], [6 * F])
    assert blocks(lambda: repeat_columns(leaf(2, 3), 1)) == ([6 * F, 6 * F], [6 * F])
    assert blocks(lambda: repeat_rows(leaf(2, 3), 2)) == ([6 * F, 12 * F], [6 * F])


def test_pairs_are_selected_into_zeros_and_stacked() -> None:
    assert blocks(lambda: select(leaf(4, 2, 3), 1)) == ([24 * F], [24 * F])
    assert blocks(lambda: stack_pair(leaf(4, 3), leaf(4, 3)))[0] == [12 * F, 12 * F, 24 * F]
    assert blocks(lambda: cos(leaf(4))) == ([16, 16], [16, 16, 16])


def test_what_python_passes_lives_until_the_product_is_there() -> None:
    with run(Tape(), Kernels()) as tape, autocast(BF16):
        weight = empty((4, 6), FP32)
        at = len(tape.events)
        out = linear(empty((2, 6), FP32), weight)
        events = tape.events[at:]
        product = events.index(2 * 4 * H)
        assert ~at in events[product:]  # the input, in fp32, goes after the output has come
        del out


def test_a_gradient_of_columns_stays_in_columns() -> None:
    with run(Tape(), Kernels()):
        a, b = leaf(2, 3), leaf(3, 4)
        out = matmul(a, b)
        run_from(out, empty(out.shape, out.dtype))
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad.shape, b.grad.shape) == ((2, 3), (3, 4))
