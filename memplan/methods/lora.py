"""LoRA as PEFT runs it: linear layers and embeddings.

Source: huggingface/peft v0.21.2 peft/tuners/lora/layer.py, peft/tuners/tuners_utils.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memplan.dtypes import BF16, FP16, FP32
from memplan.engine import Tensor
from memplan.engine.nn import Embedding, Linear, Module, building_layer, parameter
from memplan.engine.ops import embedding as embedding_op
from memplan.engine.ops.matmul import linear
from memplan.engine.ops.pointwise import add, dropout, scale, to
from memplan.engine.ops.views import transpose
from memplan.errors import ConfigError
from memplan.methods.full import freeze_all
from memplan.methods.modules_to_save import replace_child, save_modules, submodule
from memplan.methods.targets import Targets
from memplan.workload import Workload


class LoraLayer(Module):
    """``LoraLayer``: a base layer and the adapter beside it."""

    base_layer: Any

    def adapter_parameters(self) -> Iterator[tuple[Module, str]]:
        """(owner, attribute) of what the adapter trains, in PEFT's order."""
        raise NotImplementedError


class LoraLinear(LoraLayer):
    """``peft.tuners.lora.layer.Linear``.

    The adapter is made on the host and moved in the base weight's dtype.
    """

    def __init__(self, base_layer: Linear, rank: int, p: float) -> None:
        self.base_layer = base_layer
        n_out, n_in = base_layer.out_features, base_layer.in_features
        self.lora_A = Linear(n_in, rank, base_layer.compute_dtype)
        self.lora_B = Linear(rank, n_out, base_layer.compute_dtype)
        self.dropout = p

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        x = to(x, self.lora_A.weight.dtype)
        result = add(result, scale(self.lora_B(self.lora_A(dropout(x, self.dropout)))))
        result = to(result, torch_result_dtype)
        return result

    def adapter_parameters(self) -> Iterator[tuple[Module, str]]:
        """lora_A and lora_B."""
        yield self.lora_A, "weight"
        yield self.lora_B, "weight"


class LoraEmbedding(LoraLayer):
    """``peft.tuners.lora.layer.Embedding``: a dropout is made and never used."""

    def __init__(self, base_layer: Embedding, rank: int, p: float) -> None:
        self.base_layer = base_layer
        (num_embeddings, embedding_dim), dtype = base_layer.weight.shape, base_layer.weight.dtype
        self.lora_embedding_A = parameter((rank, num_embeddings), dtype)
        self.lora_embedding_B = parameter((embedding_dim, rank), dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x: (...) -> (..., embedding_dim)."""
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        embedding_A = transpose(self.lora_embedding_A, 0, 1)
        embedding_B = transpose(self.lora_embedding_B, 0, 1)
        after_A = embedding_op.embedding(x, embedding_A)
        adapter_output = scale(linear(after_A, transpose(embedding_B, 0, 1)))  # after_A @ B.T
        result = add(result, adapter_output)
        result = to(result, torch_result_dtype)
        return result

    def adapter_parameters(self) -> Iterator[tuple[Module, str]]:
        """lora_embedding_A and lora_embedding_B."""
        yield self, "lora_embedding_A"
        yield self, "lora_embedding_B"


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``: freeze, wrap the targets, copy the modules to save, cast the adapters.

    Raises:
        ConfigError: The targets match no module.
    """
    made = inject(model, workload)
    train_biases(model, made, workload.bias)
    save_modules(model, workload.modules_to_save)
    if workload.adapter_dtype == "float32":
        for layer in made:
            cast_adapter(layer)
    return model


def inject(model: Module, workload: Workload) -> list[LoraLayer]:
    """``inject_adapter``: wrap each target, in the order of the modules' registration."""
    freeze_all(model)
    targets = Targets.of(workload)
    names = targets.find(model)
    if not names:
        raise ConfigError(no_target(workload))
    made = []
    for name in names:
        parent, _, child = name.rpartition(".")
        base_layer = submodule(model, name)
        wrapper = lora_class(base_layer, name)
        with building_layer(*place(base_layer)):
            made.append(wrapper(base_layer, targets.rank(name, workload.rank), workload.dropout))
        replace_child(submodule(model, parent), child, made[-1])
    return made


def no_target(workload: Workload) -> str:
    """What to say when nothing is adapted."""
    text = f"target_modules: {workload.target_modules!r} match no module of the model"
    if workload.modules_to_save:
        text += " that modules_to_save leaves to the adapter"
    return text + "."


def place(base_layer: Module) -> tuple[int, int]:
    """The decoder layer that a module belongs to, and how many it stands for."""
    weight = next(base_layer.parameters())
    return weight.layer, weight.copies


def lora_class(base_layer: Module, name: str) -> Callable[[Any, int, float], LoraLayer]:
    """Which wrapper a layer gets: PEFT's dispatch by the class of the base layer."""
    if isinstance(base_layer, Embedding):
        return LoraEmbedding
    if not isinstance(base_layer, Linear):
        raise ConfigError(
            f"target_modules: {name} is a {type(base_layer).__name__}; LoRA adapts linear layers "
            "and embeddings."
        )
    bits = getattr(base_layer, "bits", None)
    if bits is None:
        return LoraLinear
    from memplan.methods.lora_bnb import LoraLinear4bit, LoraLinear8bitLt

    classes: dict[int, type[LoraLinear]] = {4: LoraLinear4bit, 8: LoraLinear8bitLt}
    return classes[bits]


def train_biases(model: Module, made: list[LoraLayer], bias: str) -> None:
    """``_mark_only_adapters_as_trainable``: which of the base's biases train."""
    if bias == "all":
        for _, _, name, p in model.named_parameters():
            if name == "bias":
                p.requires_grad = True
    elif bias == "lora_only":
        for layer in made:
            own = getattr(layer.base_layer, "bias", None)
            if own is not None:
                own.requires_grad = True


def cast_adapter(layer: LoraLayer) -> None:
    """``cast_adapter_dtype``: 16-bit parameters become fp32, one by one."""
    for owner, name in layer.adapter_parameters():
        old = getattr(owner, name)
        if old.dtype is BF16 or old.dtype is FP16:
            with building_layer(old.layer, old.copies):
                setattr(owner, name, parameter(old.shape, FP32))
        del old
