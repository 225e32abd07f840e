"""Who asked for a block: a second run whose tape looks up the Python stack at every allocation.

It reads only code names and module names of the frames, never their local variables: reading those
would keep tensors alive.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from memplan.engine.tape import OUTSIDE, Tape

if TYPE_CHECKING:
    from memplan.engine.nn import Module

OPERATORS = ("memplan.engine.ops.", "memplan.engine.reduction")
ENGINE = "memplan.engine.autograd"
NODES = (ENGINE, *OPERATORS, "memplan.quantization.", "memplan.optimizers.")
"""Where nodes run, and where their backwards, and what hooks do in them, are written: what they
call is their doing."""


class Origin(NamedTuple):
    """Where an allocation, or a node of the graph, was made.

    Attributes:
        layer: Decoder layer, or ``OUTSIDE``.
        module: Qualified name of the innermost module.
        op: The operator, or the function that is none.
        source: The Python module of that function.
        is_backward: Made by a node's backward, not by a forward.
    """

    layer: int
    module: str
    op: str
    source: str
    is_backward: bool


class AnnotatedTape(Tape):
    """A tape that remembers the origin of every block.

    Attributes:
        origins: {block: its origin}.
        gradients: Blocks that became a leaf's gradient.
    """

    annotates = True

    def __init__(self) -> None:
        self.here = Origin(OUTSIDE, "", "", "", False)
        self.names: dict[int, str] = {}
        self.root: Module | None = None
        self.origins: dict[int, Origin] = {}
        self.gradients: set[int] = set()
        super().__init__()

    @property  # type: ignore[override]
    def origin(self) -> Origin:
        """What a node that is made now remembers."""
        return self.locate(sys._getframe(1))

    @origin.setter
    def origin(self, value: int) -> None:
        self.here = self.here._replace(layer=value)

    def locate(self, frame: FrameType | None) -> Origin:
        """The operator that a frame works for."""
        op = source = ""
        is_found = False
        while frame is not None:
            module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_name
            if name == "workspace":
                return self.here._replace(op=name, source=module, is_backward=False)
            if module == ENGINE and name == "step":
                return self.here._replace(is_backward=True)
            if module.startswith(OPERATORS) and not is_found:
                op, source = (op if name.startswith("<") else name), module
            elif op:
                is_found = True
                if not module.startswith(NODES):
                    break
            elif module.startswith("memplan.") and not module.startswith("memplan.engine."):
                op, source, is_found = name, module, True
            frame = frame.f_back
        return self.here._replace(op=op, source=source, is_backward=False)

    def alloc(self, nbytes: int) -> int:
        """Record a block and who asked for it."""
        number = super().alloc(nbytes)
        self.origins[number] = self.locate(sys._getframe(1))
        return number

    def enter(self, origin: int | Origin) -> None:
        """A layer, or the origin of a node that runs now."""
        layer = origin.layer if isinstance(origin, Origin) else origin
        if layer != self.here.layer:
            self.layers.append((len(self.events), layer))
        if isinstance(origin, Origin):
            self.here = origin
        else:
            self.here = self.here._replace(layer=layer)

    def claim_gradient(self, number: int) -> None:
        """A block became a leaf's gradient."""
        self.gradients.add(number)

    def watch(self, root: Any) -> None:
        """Name modules as seen from ``root``."""
        self.root, self.names = root, {}

    @contextmanager
    def module(self, module: Module) -> Iterator[None]:
        """What follows happens inside ``module``."""
        if id(module) not in self.names and self.root is not None:
            self.names = {id(m): name for name, m in self.root.named_modules()}
        before = self.here
        self.here = before._replace(module=self.names.get(id(module), before.module))
        try:
            yield
        finally:
            self.here = self.here._replace(module=before.module)
