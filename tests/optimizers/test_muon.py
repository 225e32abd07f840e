from __future__ import annotations

from memplan.dtypes import BF16, FP32
from memplan.engine.nn import Embedding, Linear, Module
from memplan.engine.tensor import empty
from memplan.optimizers.muon import Muon
from tests.optimizers.steps import allocated_in_steps, events_of

MOMENTUM, LERP = 30 * 40 * 4, 30 * 40 * 4
IN_BF16, GRAM = 30 * 40 * 2, 30 * 30 * 2
ITERATIONS = [GRAM, GRAM, IN_BF16] * 5


def test_a_matrix_has_one_momentum_and_is_orthogonalised_in_bf16() -> None:
    step = [LERP, IN_BF16, 2, 2, *ITERATIONS]
    assert allocated_in_steps(Muon, 2, [(30, 40)], FP32) == [MOMENTUM, *step, *step]


def test_the_gram_matrix_is_of_the_shorter_side() -> None:
    wide = allocated_in_steps(Muon, 1, [(30, 40)], BF16)
    assert allocated_in_steps(Muon, 1, [(40, 30)], BF16) == wide


def test_a_vector_is_adamw_s_and_comes_last() -> None:
    moments, root = [50 * 4, 50 * 4], [50 * 4]
    both = allocated_in_steps(Muon, 1, [(50,), (30, 40)], FP32)
    assert both == [*allocated_in_steps(Muon, 1, [(30, 40)], FP32), *moments, *root]


class Model(Module):
    def __init__(self) -> None:
        self.embed_tokens = Embedding(9, 4, FP32)
        self.proj = Linear(4, 4, FP32)
        self.lm_head = Linear(4, 9, FP32)


def test_embeddings_and_what_makes_the_logits_are_adamw_s() -> None:
    def body() -> None:
        model = Model()
        params = list(model.parameters())
        optimizer = Muon(params)
        optimizer.look_into(model)
        assert optimizer.matrices == [model.proj.weight]
        assert optimizer.adamw.params == [model.embed_tokens.weight, model.lm_head.weight]
        params[1].grad = empty((4, 4), FP32)
        optimizer.step()
        assert list(optimizer.state) == [model.proj.weight]
        assert not optimizer.adamw.state

    events_of(body)
