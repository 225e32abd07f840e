"""The backward engine's rules, one by one, in bytes that a reader can add up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memplan.dtypes import BF16, FP32
from memplan.engine import Kernels, S, Tape, Tensor, backward, empty, no_grad, run
from memplan.engine.checkpoint import checkpoint
from memplan.engine.nn import Linear
from memplan.engine.ops.matmul import linear
from memplan.engine.ops.pointwise import add, mul, scale
from memplan.engine.ops.views import view


@pytest.fixture
def tape() -> Iterator[Tape]:
    with run(Tape(), Kernels()) as tape:
        yield tape
        tape.finish()


def leaf(*shape: int, requires_grad: bool = True) -> Tensor:
    t = empty(shape, FP32)
    t.requires_grad = requires_grad
    return t


def live(tape: Tape) -> int:
    """Bytes that live now."""
    return sum(e if e >= 0 else -tape.events[~e] for e in tape.events)


def total(tape: Tape, since: int) -> int:
    """Bytes that were asked for since an event."""
    return sum(e for e in tape.events[since:] if e >= 0)


def scalar(x: Tensor) -> Tensor:
    """A stand-in for a loss: the graph's root must have one gradient of its own shape."""
    return scale(x)


def test_a_frozen_linear_saves_no_input(tape: Tape) -> None:
    weight = leaf(8, 4, requires_grad=False)
    x = leaf(2, 4)
    before = live(tape)
    out = linear(scale(x), weight)
    workspace = S.kernels.cublas_workspace_bytes
    assert live(tape) - before == 2 * 8 * 4 + workspace  # the scaled input is gone
    del out


def test_a_trained_linear_keeps_its_input(tape: Tape) -> None:
    weight = leaf(8, 4)
    x = leaf(2, 4)
    before = live(tape)
    out = linear(scale(x), weight)
    kept = 2 * 4 * 4
    assert live(tape) - before == kept + 2 * 8 * 4 + S.kernels.cublas_workspace_bytes
    del out


def test_no_grad_records_nothing(tape: Tape) -> None:
    x = leaf(16)
    with no_grad():
        y = scale(scale(x))
    assert y.node is None
    assert live(tape) == 2 * 16 * 4


def test_the_first_gradient_of_a_leaf_is_kept_not_copied(tape: Tape) -> None:
    x = leaf(16)
    loss = scalar(x)
    since = len(tape.events)
    backward(loss)
    assert total(tape, since) == 2 * 64  # the root's gradient and the leaf's
    assert x.grad is not None


def test_a_second_gradient_is_added_in_place(tape: Tape) -> None:
    x = leaf(16)
    backward(scalar(x))
    since = len(tape.events)
    backward(scalar(x))
    assert total(tape, since) == 64 + 2 * 64  # the output; the root's gradient and the new one


def test_gradients_that_two_edges_share_are_added_out_of_place(tape: Tape) -> None:
    x = leaf(16)
    loss = add(x, x)
    since = len(tape.events)
    backward(loss)
    assert total(tape, since) == 64 + 64  # the root's gradient is both; their sum is new


def test_a_gradient_that_is_a_view_is_not_added_into(tape: Tape) -> None:
    x = leaf(4, 4)
    loss = add(scale(view(x, (16,))), scale(view(x, (16,))))
    since = len(tape.events)
    backward(loss)
    root, scaled, summed = 64, 2 * 64, 64
    assert total(tape, since) == root + scaled + summed


def test_products_save_the_other_operand_only_where_it_is_wanted(tape: Tape) -> None:
    x, weight = leaf(16), leaf(16, requires_grad=False)
    out = mul(scale(x), weight)
    assert out.node is not None
    assert [s.nbytes for s in out.node.saved] == [64]
    assert out.node.saved[0] is weight.storage


def test_checkpointing_keeps_the_input_and_runs_again(tape: Tape) -> None:
    layer = Linear(16, 16, FP32)
    x = leaf(2, 16)
    before = live(tape)
    out = checkpoint(lambda t: layer(scale(layer(t))), x, use_reentrant=False)
    assert live(tape) - before == 2 * 16 * 4 + S.kernels.cublas_workspace_bytes
    since = len(tape.events)
    backward(out)
    assert total(tape, since) > 3 * 2 * 16 * 4
    assert layer.weight.grad is not None


def test_a_run_leaves_the_thread_as_it_was() -> None:
    before = dict(S.__dict__)

    def break_off() -> None:
        with run(Tape(), Kernels()):
            S.autocast = BF16
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert dict(S.__dict__) == before
