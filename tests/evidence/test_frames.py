"""What a stack tells of an allocation: stacks as torch 2.14 recorded them, shortened."""

from __future__ import annotations

from typing import Any

from memplan.categories import BASE, OTHER, WORKSPACE
from memplan.evidence.frames import (
    ADAPTER,
    OPTIMIZER,
    is_backward_work,
    line_of,
    op_of,
    source_of,
)

Frame = dict[str, Any]


def native(name: str, file: str = "??") -> Frame:
    return {"filename": file, "line": 0, "name": name}


def python(file: str, name: str, line: int = 1) -> Frame:
    return {"filename": f"/env/site-packages/{file}", "line": line, "name": name}


MAIN = python("train.py", "<module>", 7)
MM = native("at::_ops::mm::call(at::Tensor const&, at::Tensor const&)")
LINEAR = native("at::_ops::linear::call(at::Tensor const&, at::Tensor const&)")
INTERPRETER = native("_PyEval_EvalFrame", "/build/Python/ceval.c")
FORWARD = [
    native("c10::cuda::CUDACachingAllocator::malloc"), MM, LINEAR, INTERPRETER,
    python("torch/nn/modules/linear.py", "forward", 134),
    python("torch/nn/modules/module.py", "_call_impl"), MAIN,
]  # fmt: skip
NODE = [
    MM, native("torch::autograd::generated::MmBackward0::apply(std::vector<at::Tensor>)"),
    native("torch::autograd::Engine::evaluate_function"),
]  # fmt: skip
CHECKPOINT = "torch/utils/checkpoint.py"


def test_the_operator_is_the_outermost_that_python_called() -> None:
    assert op_of(FORWARD) == "linear"


def test_in_a_backward_the_operator_is_the_node() -> None:
    assert op_of(NODE) == "MmBackward0"


def test_the_line_is_the_first_that_is_not_torch_getting_there() -> None:
    assert line_of(FORWARD) == "modules/linear.py:134 forward"
    assert line_of(NODE) == ""


def test_a_node_in_autograds_own_thread_is_backward_work() -> None:
    assert is_backward_work(NODE)
    assert is_backward_work([python("bitsandbytes/autograd/_functions.py", "backward")])


def test_a_forward_that_checkpointing_runs_again_is_not() -> None:
    again = [python("modeling_llama.py", "forward"), python(CHECKPOINT, "recompute_fn")]
    assert not is_backward_work(again)
    reentrant = [python("modeling_llama.py", "forward"), python(CHECKPOINT, "backward")]
    assert not is_backward_work(reentrant)


def test_a_backward_inside_of_reentrant_checkpointing_is() -> None:
    inner = [python("torch/autograd/graph.py", "_engine_run_backward")]
    assert is_backward_work([*NODE, *inner, python(CHECKPOINT, "backward")])


def test_what_the_main_thread_does_beside_the_backward_is_not() -> None:
    assert not is_backward_work([python("torch/amp/grad_scaler.py", "scale"), MAIN])


def test_sources() -> None:
    handle = native("at::cuda::getCurrentCUDABlasHandle(bool)")
    assert source_of([handle, *FORWARD]) == WORKSPACE
    assert source_of([python("peft/tuners/lora/layer.py", "update_layer"), MAIN]) == ADAPTER
    prepare = python("peft/utils/other.py", "prepare_model_for_kbit_training")
    assert source_of([prepare, MAIN]) == BASE
    assert source_of([python("torch/optim/adam.py", "_init_group"), MAIN]) == OPTIMIZER
    assert source_of([python("transformers/modeling_utils.py", "to"), MAIN]) == OTHER
