"""LoRA as PEFT runs it: linear layers and embeddings.

Source: huggingface/peft v0.21.2 peft/tuners/lora/layer.py, peft/tuners/tuners_utils.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from memplan.dtypes import BF16, FP16, FP32
from memplan.engine import S, Tensor
from memplan.engine.nn import Embedding, Linear, Module, building_layer, parameter
from memplan.engine.ops import embedding as embedding_op
from memplan.engine.ops.matmul import linear
from memplan.engine.ops.pointwise import add, dropout, mul, scale, to
from memplan.engine.ops.views import transpose
from memplan.errors import ConfigError, UnsupportedError
from memplan.methods.dora import DoraEmbeddingLayer, DoraLinearLayer
from memplan.methods.full import freeze_all
from memplan.methods.lora_init import DECOMPOSED, OLORA, ORTHOGONAL
from memplan.methods.lora_tokens import train_tokens
from memplan.methods.lora_tying import save_and_tie
from memplan.methods.modules_to_save import (
    ModulesToSaveWrapper,
    replace_child,
    submodule,
)
from memplan.methods.targets import Targets
from memplan.methods.trainable_tokens import cast_rows
from memplan.workload import Workload


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """What of a ``LoraConfig`` shapes the adapter of one layer.

    Attributes:
        rank: ``r``.
        dropout: ``lora_dropout``.
        bias: ``lora_bias``: B has a bias.
        dora: ``use_dora``.
        init: ``init_lora_weights``.
    """

    rank: int
    dropout: float = 0.0
    bias: bool = False
    dora: bool = False
    init: object = True

    @classmethod
    def of(cls, workload: Workload, rank: int) -> LoraOptions:
        """The options of a workload's adapter of this rank."""
        given = workload.peft_config
        dora = given.get("use_dora", workload.method == "dora")
        bias, init = bool(given.get("lora_bias")), given.get("init_lora_weights", True)
        return cls(rank, workload.dropout, bias, bool(dora), init)


class LoraLayer(Module):
    """``LoraLayer``: a base layer and the adapter beside it.

    Attributes:
        base_is_saved: Whether the adapter's checkpoint holds the base's weight, too.
        is_active: Whether the adapter runs and trains.
        further: Other adapters of the layer, which do neither.
    """

    base_layer: Any
    lora_magnitude_vector: DoraLinearLayer | None
    base_is_saved = False
    is_active = True

    def __init__(self, base_layer: Any, o: LoraOptions) -> None:
        self.base_layer, self.options = base_layer, o
        self.further: list[LoraLayer] = []

    def adapter_parameters(self) -> Iterator[tuple[Module, str]]:
        """(owner, attribute) of what the adapter trains, in PEFT's order."""
        raise NotImplementedError

    def saved_beside(self) -> Iterator[Tensor]:
        """What of the adapter is frozen, and an embedding that is adapted."""
        if not self.is_active:
            return
        parameters = (getattr(owner, name) for owner, name in self.adapter_parameters())
        yield from (p for p in parameters if not p.requires_grad)
        if self.base_is_saved:
            yield self.base_layer.weight


class LoraLinear(LoraLayer):
    """``peft.tuners.lora.layer.Linear``.

    The adapter is made on the host and moved in the base weight's dtype.
    """

    def __init__(self, base_layer: Linear, o: LoraOptions) -> None:
        super().__init__(base_layer, o)
        n_out, n_in = base_layer.out_features, base_layer.in_features
        check_init(base_layer, o)
        if o.init in DECOMPOSED:
            made = list(DECOMPOSED[str(o.init)](base_layer, min(o.rank, n_out, n_in)))
            self.lora_A, self.lora_B = (of_matrix(made, base_layer) for _ in range(2))
        else:
            self.lora_A = Linear(n_in, o.rank, base_layer.compute_dtype)
            self.lora_B = Linear(o.rank, n_out, base_layer.compute_dtype, bias=o.bias)
        self.dropout = o.dropout
        self.lora_magnitude_vector = None
        if o.dora:
            matrices = self.lora_A.weight, self.lora_B.weight
            self.lora_magnitude_vector = DoraLinearLayer(base_layer, *matrices)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in_features) -> (..., out_features)."""
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        x = to(x, self.lora_A.weight.dtype)
        if self.lora_magnitude_vector is None:
            result = add(result, scale(self.lora_B(self.lora_A(dropout(x, self.dropout)))))
        else:
            result = self.with_magnitude(x, result, self.lora_magnitude_vector)
        result = to(result, torch_result_dtype)
        return result

    def with_magnitude(self, x: Tensor, result: Tensor, magnitude: DoraLinearLayer) -> Tensor:
        """``DoraLinearVariant.forward``: with dropout, the base's own result serves no more."""
        base_result = None
        if self.dropout and S.training:
            x = dropout(x, self.dropout)
        else:
            base_result = result
        result = add(result, magnitude(x, self.lora_A, self.lora_B, self.base_layer, base_result))
        return result

    def adapter_parameters(self) -> Iterator[tuple[Module, str]]:
        """lora_A, lora_B and DoRA's magnitude."""
        yield self.lora_A, "weight"
        yield self.lora_B, "weight"
        if self.lora_B.bias is not None:
            yield self.lora_B, "bias"
        if self.lora_magnitude_vector is not None:
            yield self.lora_magnitude_vector, "weight"


class LoraEmbedding(LoraLayer):
    """``peft.tuners.lora.layer.Embedding``: a dropout is made and never used."""

    def __init__(self, base_layer: Embedding, o: LoraOptions) -> None:
        check_init(base_layer, o)
        if o.bias:
            raise ConfigError(
                "peft_config: lora_bias: True is not supported for embeddings; take them out of "
                "target_modules, or lora_bias out of peft_config."
            )
        super().__init__(base_layer, o)
        (num_embeddings, embedding_dim), dtype = base_layer.weight.shape, base_layer.weight.dtype
        self.lora_embedding_A = parameter((o.rank, num_embeddings), dtype)
        self.lora_embedding_B = parameter((embedding_dim, o.rank), dtype)
        self.lora_magnitude_vector = None
        if o.dora:
            matrices = self.lora_embedding_A, self.lora_embedding_B
            self.lora_magnitude_vector = DoraEmbeddingLayer(base_layer, *matrices)

    def forward(self, x: Tensor) -> Tensor:
        """x: (...) -> (..., embedding_dim)."""
        result = self.base_layer(x)
        torch_result_dtype = result.dtype
        if self.lora_magnitude_vector is not None:
            result = self.with_magnitude(x, result, self.lora_magnitude_vector)
            return to(result, torch_result_dtype)
        embedding_A = transpose(self.lora_embedding_A, 0, 1)
        embedding_B = transpose(self.lora_embedding_B, 0, 1)
        after_A = embedding_op.embedding(x, embedding_A)
        adapter_output = scale(linear(after_A, transpose(embedding_B, 0, 1)))  # after_A @ B.T
        result = add(result, adapter_output)
        result = to(result, torch_result_dtype)
        return result

    def with_magnitude(self, x: Tensor, result: Tensor, magnitude: DoraLinearLayer) -> Tensor:
        """``DoraEmbeddingVariant.forward``."""
        embedding_A = transpose(self.lora_embedding_A, 0, 1)
        embedding_B = transpose(self.lora_embedding_B, 0, 1)
        mag_norm_scale, dora_result = magnitude(x, embedding_A, embedding_B, self.base_layer)
        result = add(mul(mag_norm_scale, result), dora_result)
        return result

    def adapter_parameters(self) -> Iterator[tuple[Module, str]]:
        """lora_embedding_A, lora_embedding_B and DoRA's magnitude."""
        yield self, "lora_embedding_A"
        yield self, "lora_embedding_B"
        if self.lora_magnitude_vector is not None:
            yield self.lora_magnitude_vector, "weight"


def apply(model: Module, workload: Workload) -> Module:
    """``get_peft_model``: freeze, wrap the targets, copy the modules to save, cast the adapters.

    Raises:
        ConfigError: The targets match no module.
    """
    made = inject(model, workload)
    train_biases(model, made, workload.bias)
    save_and_tie(model, workload)
    rows = train_tokens(model, workload)
    if rows is None:
        save_embeddings(model, Targets.of(workload))
    if workload.adapter_dtype == "float32":
        if rows is not None:
            cast_rows(rows)
        for layer in made:
            cast_adapter(layer)
    for _ in range(1, workload.adapters):
        add_adapter(model, workload, made)
    return model


def add_adapter(model: Module, workload: Workload, made: list[LoraLayer]) -> None:
    """``PeftModel.add_adapter``: one more beside each of the first's, loaded and not active."""
    added = []
    for layer in made:
        with building_layer(*place(layer.base_layer)):
            further = type(layer)(layer.base_layer, layer.options)
        del further.base_layer
        further.is_active = False
        freeze_all(further)
        layer.further = [*layer.further, further]
        added.append(further)
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            module.add_copy()
    if workload.adapter_dtype == "float32":
        for further in added:
            cast_adapter(further)
            freeze_all(further)


def save_embeddings(model: Any, targets: Targets) -> None:
    """``save_embedding_layers="auto"``: adapted embeddings are saved whole, a tied one once."""
    if not targets.embedding_is_targeted():
        return
    layers = [m for m in (model.model.embed_tokens, model.lm_head) if isinstance(m, LoraLayer)]
    tables = {id(layer.base_layer.weight): layer for layer in reversed(layers)}
    for layer in tables.values():
        layer.base_is_saved = True


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
            options = LoraOptions.of(workload, targets.rank(name, workload.rank))
            made.append(wrapper(base_layer, options))
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


def check_init(base_layer: Linear | Embedding, o: LoraOptions) -> None:
    """Where an initialisation goes.

    Raises:
        ConfigError: PEFT refuses it for this layer.
    """
    if o.init not in (*DECOMPOSED, ORTHOGONAL):
        return
    name = f"peft_config: init_lora_weights: {o.init}"
    if isinstance(base_layer, Embedding):
        raise ConfigError(f"{name}: PEFT has it for linear layers only; adapt no embeddings.")
    if getattr(base_layer, "bits", None) is not None:
        if o.init == OLORA:
            raise UnsupportedError(f"{name}: over a quantised base it is not modelled.")
        raise ConfigError(f"{name}: PEFT wants a base in 16 or 32 bits; leave quantization out.")
    if o.init == ORTHOGONAL and o.rank % 2:
        raise ConfigError(f"{name}: the rank must be even, got {o.rank}.")


def of_matrix(matrices: list[Tensor], base_layer: Linear) -> Linear:
    """A layer around the first of some fp32 matrices, moved in the base's dtype."""
    matrix = matrices.pop(0)
    out_features, in_features = matrix.shape
    S.meta = True
    made = Linear(in_features, out_features, base_layer.compute_dtype)
    S.meta = False
    made.weight.storage = to(matrix, base_layer.compute_dtype).storage
    return made


def lora_class(base_layer: Module, name: str) -> Callable[[Any, LoraOptions], LoraLayer]:
    """Which wrapper a layer gets: PEFT's dispatch by the class of the base layer."""
    if isinstance(base_layer, Embedding):
        return LoraEmbedding
    if not isinstance(base_layer, Linear):
        raise ConfigError(
            f"target_modules: {name} is a {type(base_layer).__name__}; LoRA adapts linear layers "
            "and embeddings."
        )
    if getattr(base_layer, "dispatch", None) == "hqq":
        from memplan.methods.lora_hqq import HqqLoraLinear

        return HqqLoraLinear
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
    """``cast_adapter_dtype``: 16-bit parameters become fp32, one by one.

    A module's parameters are listed before the first is cast, so all of them go after the last.
    """
    listed: list[Tensor] = []
    last: Module = layer
    for owner, name in layer.adapter_parameters():
        old = getattr(owner, name)
        if owner is not last or owner is layer:
            listed = []
        listed.append(old)
        last = owner
        if old.dtype is BF16 or old.dtype is FP16:
            with building_layer(old.layer, old.copies):
                setattr(owner, name, parameter(old.shape, FP32))
        del old
