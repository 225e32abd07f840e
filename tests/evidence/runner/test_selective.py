"""What the reference lets train, on a model that is a few names."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from memplan.evidence.runner.selective import train_chosen

NAMES = (
    *("model.embed_tokens.weight", "model.layers.0.q_proj.weight", "model.layers.0.q_proj.bias"),
    *("model.layers.1.q_proj.weight", "model.layers.1.q_proj.bias", "model.norm.weight"),
    "lm_head.weight",
)


class Part:
    """A module: its own parameters, and modules by name."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """(name, module) of those below."""
        return ((k, v) for k, v in vars(self).items() if isinstance(v, (Part, list)))

    def children(self) -> Iterator[Any]:
        """Those below."""
        return (child for _, child in self.named_children())

    def parameters(self) -> Iterator[Any]:
        """Every parameter."""
        for value in vars(self).values():
            for part in value if isinstance(value, list) else (value,):
                yield from part.parameters() if isinstance(part, Part) else (part,)


class Model(Part):
    """A decoder of two layers, with or without a head of its own."""

    def __init__(self, *, tied: bool) -> None:
        self.all = {name: SimpleNamespace(requires_grad=True) for name in NAMES}
        names = NAMES[1:5]
        q = [Part(weight=self.all[a], bias=self.all[b]) for a, b in (names[:2], names[2:])]
        self.embed = Part(weight=self.all[NAMES[0]])
        self.decoder = Part(
            embed_tokens=self.embed,
            layers=List(Part(q_proj=part) for part in q),
            norm=Part(weight=self.all["model.norm.weight"]),
        )
        self.head = self.embed if tied else Part(weight=self.all["lm_head.weight"])

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """(name, parameter)."""
        return iter(self.all.items())

    def requires_grad_(self, value: bool) -> None:
        """Of all at once."""
        for parameter in self.all.values():
            parameter.requires_grad = value

    def get_input_embeddings(self) -> Any:
        """The table."""
        return self.embed

    def get_output_embeddings(self) -> Any:
        """The head."""
        return self.head

    def get_decoder(self) -> Any:
        """The decoder."""
        return self.decoder


class List(list[Part]):
    """A list of modules."""


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of torch as it takes."""
    fake: Any = ModuleType("torch")
    fake.nn = SimpleNamespace(ModuleList=List)
    monkeypatch.setitem(__import__("sys").modules, "torch", fake)


def trained(tied: bool = False, **w: Any) -> list[str]:
    """Names that train."""
    model = train_chosen({"trainable": [], **w}, Model(tied=tied))
    return [name for name, p in model.named_parameters() if p.requires_grad]


def test_bitfit_trains_the_biases() -> None:
    assert trained(method="bitfit") == [NAMES[2], NAMES[4]]


def test_the_last_layers_train_with_norm_and_head() -> None:
    assert trained(method="last_layers", num_trainable_layers=1) == list(NAMES[3:])


def test_a_tied_head_stays_frozen() -> None:
    assert trained(True, method="last_layers", num_trainable_layers=1) == list(NAMES[3:6])


def test_the_embeddings_train_alone() -> None:
    assert trained(method="embeddings_only") == [NAMES[0]]


def test_patterns_are_searched_for() -> None:
    assert trained(method="full", trainable=["norm", r"\.0\..*bias"]) == [NAMES[2], NAMES[5]]


def test_a_pattern_that_finds_nothing_is_refused_with_near_names() -> None:
    with pytest.raises(ValueError, match=r"'lm_haed'.*near: \['lm_head.weight'"):
        trained(method="full", trainable=["lm_haed"])


def test_more_layers_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match="the model has 2"):
        trained(method="last_layers", num_trainable_layers=3)
