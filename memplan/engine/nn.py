"""torch.nn modules that hold parameters, and the base that walks them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from memplan.dtypes import FP32, DType
from memplan.engine.ops import embedding as embedding_op
from memplan.engine.ops import matmul, pointwise
from memplan.engine.state import S
from memplan.engine.tape import OUTSIDE
from memplan.engine.tensor import Shape, Tensor, empty


def parameter(shape: Shape, dtype: DType, requires_grad: bool = True) -> Tensor:
    """A parameter of the layer that is being built; without storage on the meta device."""
    t = Tensor(shape, dtype, None) if S.meta else empty(shape, dtype)
    t.requires_grad = requires_grad
    t.layer, t.copies = S.layer, S.copies
    return t


class Module:
    """``torch.nn.Module``.

    Attributes that are modules, lists of modules or tensors are its children and parameters.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Hold the arguments until ``forward`` returns, as ``nn.Module._call_impl`` does."""
        if S.tape.annotates:
            with S.tape.module(self):  # type: ignore[attr-defined]
                return self.forward(*args, **kwargs)
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation."""
        raise NotImplementedError

    def saved_beside(self) -> Iterable[Tensor]:
        """Tensors that an adapter's checkpoint holds although they do not train.

        Source: huggingface/peft v0.21.2 utils/save_and_load.py ``get_peft_model_state_dict``.
        """
        return ()

    def unsaved(self) -> Iterable[Tensor]:
        """Parameters that train and that an adapter's checkpoint leaves out."""
        return ()

    def saved_instead(self) -> int | None:
        """Tensor data of a checkpoint that holds something else than what trains. [bytes]

        Source: huggingface/peft v0.21.2 tuners/tuners_utils.py ``BasePromptEncoder``.
        """
        return None

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the direct children; those in a list as ``name.0``, ``name.1``."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list):
                for i, m in enumerate(value):
                    if isinstance(m, Module):
                        yield f"{name}.{i}", m

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(qualified name, module), itself first, depth first in the order of registration."""
        yield prefix, self
        for name, m in self.named_children():
            yield from m.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """All modules below and including this one."""
        for _, m in self.named_modules():
            yield m

    def named_parameters(self) -> Iterator[tuple[str, Module, str, Tensor]]:
        """(qualified name, owner, attribute, parameter) as registered, each parameter once."""
        seen: set[int] = set()
        for prefix, m in self.named_modules():
            for name, v in list(vars(m).items()):
                if isinstance(v, Tensor) and id(v) not in seen:
                    seen.add(id(v))
                    yield (f"{prefix}.{name}" if prefix else name), m, name, v

    def parameters(self) -> Iterator[Tensor]:
        """All parameters, each once."""
        for _, _, _, p in self.named_parameters():
            yield p


class Linear(Module):
    """``torch.nn.Linear``."""

    def __init__(
        self, in_features: int, out_features: int, dtype: DType, bias: bool = False
    ) -> None:
        self.weight = parameter((out_features, in_features), dtype)
        self.bias = parameter((out_features,), dtype) if bias else None
        self.in_features, self.out_features, self.compute_dtype = in_features, out_features, dtype

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        return matmul.linear(x, self.weight, self.bias)

    def dequantized(self) -> Tensor:
        """PEFT's ``dequantize_module_weight``: the weight itself where it is not quantised.

        Source: huggingface/peft v0.21.2 utils/integrations.py.
        """
        return self.weight

    def copied(self) -> Linear:
        """What PEFT's DoRA dequantises: a deep copy of a 4-bit layer, any other layer itself.

        Source: huggingface/peft v0.21.2 tuners/lora/dora.py ``update_layer``.
        """
        return self


class Embedding(Module):
    """``torch.nn.Embedding``.

    Attributes:
        output_requires_grad: A forward hook of ``enable_input_require_grads``: the output becomes a
            leaf that wants a gradient, unless it is in the graph already.
            Source: huggingface/transformers v5.18.0 modeling_utils.py.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: DType) -> None:
        self.weight = parameter((num_embeddings, embedding_dim), dtype)
        self.output_requires_grad = False

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (...) -> (..., embedding_dim)."""
        out = embedding_op.embedding(ids, self.weight)
        if self.output_requires_grad:
            out.requires_grad = True
        return out


class RMSNorm(Module):
    """``LlamaRMSNorm`` and its equals.

    Source: huggingface/transformers v5.18.0 models/llama/modeling_llama.py.
    """

    def __init__(self, width: int, dtype: DType) -> None:
        self.weight = parameter((width,), dtype)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """hidden_states: (..., width) -> the same shape."""
        input_dtype = hidden_states.dtype
        hidden_states = pointwise.to(hidden_states, FP32)
        variance = pointwise.mean_last(pointwise.square(hidden_states))
        hidden_states = pointwise.mul(
            hidden_states, pointwise.rsqrt(pointwise.add_number(variance))
        )
        return pointwise.mul(self.weight, pointwise.to(hidden_states, input_dtype))


class building_layer:
    """Parameters made inside are of decoder layer ``layer`` and stand for ``copies`` like it."""

    __slots__ = ("copies", "layer")

    def __init__(self, layer: int, copies: int) -> None:
        self.layer, self.copies = layer, copies

    def __enter__(self) -> None:
        S.layer, S.copies = self.layer, self.copies
        S.tape.enter(self.layer)

    def __exit__(self, *exc: object) -> None:
        S.layer, S.copies = OUTSIDE, 1
        S.tape.enter(OUTSIDE)
