"""The graph and the backward engine, as ``torch/csrc/autograd`` runs them.

What decides the bytes here is order: nodes run by descending sequence number; a node's incoming
gradient dies before its saved tensors are released; gradients are accumulated in place only where
the engine owns the last reference.

Source: pytorch/pytorch v2.14.1 ``torch/csrc/autograd/engine.cpp``, ``input_buffer.cpp``,
``functions/accumulate_grad.h``.
"""

from __future__ import annotations

import heapq
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

from memplan.dtypes import DType
from memplan.engine.layout import elementwise_strides
from memplan.engine.reduction import sum_to
from memplan.engine.state import S
from memplan.engine.tensor import Shape, Tensor, alias, empty, is_dense, strides_of

Grads = Iterable[Tensor | None]


class Node:
    """One entry of the graph. ``backward(grad)`` gives a gradient, or none, for each edge.

    It is made, with its saved inputs, before the operator's kernel runs (``VariableType``); saved
    outputs are added after it, by ``finish``. Only storages are saved: a closure keeps shapes,
    dtypes and strides.
    """

    __slots__ = (
        "__weakref__",
        "backward",
        "buffer",
        "context",
        "dtype",
        "edges",
        "order",
        "origin",
        "saved",
        "shape",
        "unpack",
        "waiting",
    )

    order: float
    shape: Shape
    dtype: DType
    edges: Sequence[Node | None]
    saved: Any
    buffer: Tensor | None
    backward: Any
    context: Any
    drops_gradient = False
    reuses_saved = False

    def __init__(
        self,
        inputs: Sequence[Tensor],
        saved: Sequence[Tensor],
        backward: Callable[[Tensor], Grads],
    ) -> None:
        S.node_count += 1
        self.order = S.node_count
        self.origin = S.tape.origin
        self.edges = [edge(t) for t in inputs]
        hooks = S.hooks
        if hooks is None:
            self.saved, self.unpack = [t.storage for t in saved], None
        else:
            self.saved, self.unpack = [hooks[0](t) for t in saved], hooks[1] if saved else None
        self.backward, self.buffer, self.waiting, self.context = backward, None, 0, None

    def finish(self, out: Tensor, saved: Sequence[Tensor] = ()) -> Tensor:
        """Attach the output, and what is saved of the outputs."""
        out.requires_grad, out.node = True, self
        self.shape, self.dtype = out.shape, out.dtype
        if saved:
            if S.hooks is None:
                self.saved += [t.storage for t in saved]
            else:
                pack, self.unpack = S.hooks
                self.saved += [pack(t) for t in saved]
        return out


class PyNode(Node):
    """A ``torch.autograd.Function``: the incoming gradient goes before its results are fitted.

    Source: pytorch/pytorch v2.14.1 torch/csrc/autograd/python_function.cpp ``PyNode::apply``: the
    inputs are cleared, and Python's tuple of them dies when it returns.
    """

    __slots__ = ()
    drops_gradient = True


class ReusingNode(PyNode):
    """One that writes gradients into what it saved: ``backward(grad, saved storages)``."""

    __slots__ = ()
    reuses_saved = True

    def finish(self, out: Tensor, saved: Sequence[Tensor] = ()) -> Tensor:
        """Attach the output; what was saved is always unpacked, to be written into."""
        self.unpack = self.unpack or _as_it_is
        return super().finish(out, saved)


def _as_it_is(storage: object) -> object:
    """What ``SavedVariable::unpack`` gives where no hook is set."""
    return storage


class AccumulateGrad(Node):
    """The sink of a leaf: keeps the first gradient as it is, adds later ones in place.

    The first is kept, not copied, when the engine holds the only other reference and the layout is
    the parameter's.
    """

    __slots__ = ("leaf",)

    def __init__(self, leaf: Tensor) -> None:
        self.order, self.shape, self.dtype = inf, leaf.shape, leaf.dtype
        self.edges, self.saved, self.origin = (), (), S.tape.origin
        self.leaf, self.unpack, self.buffer, self.waiting = leaf, None, None, 0

    def backward(self, grad: Tensor) -> Grads:
        """Accumulate into ``leaf.grad``."""
        leaf = self.leaf
        if leaf.grad is None:
            owners = sys.getrefcount(grad)
            stolen = owners <= LOCAL_AND_ARGUMENT and strides_of(grad) == strides_of(leaf)
            leaf.grad = alias(grad, grad.shape, grad.strides) if stolen else empty_like(grad)
        if S.after_accumulate is not None:
            S.after_accumulate(leaf)
        if leaf.grad is not None:
            S.tape.claim_gradient(leaf.grad.storage.number)
        return ()


def empty_like(t: Tensor) -> Tensor:
    """A contiguous tensor of the same shape and dtype."""
    return empty(t.shape, t.dtype)


def edge(t: Tensor) -> Node | None:
    """Where the gradient of ``t`` goes."""
    if not t.requires_grad:
        return None
    if t.node is not None:
        return t.node
    node = t.accumulator() if t.accumulator is not None else None
    if node is None:
        node = AccumulateGrad(t)
        t.accumulator = weakref.ref(node)
    return node


def attach(
    out: Tensor,
    inputs: Sequence[Tensor],
    saved: Sequence[Tensor],
    backward: Callable[[Tensor], Grads],
) -> Tensor:
    """Record an operator that saves nothing, or only outputs."""
    return Node(inputs, (), backward).finish(out, saved)


def needs_grad(*tensors: Tensor) -> bool:
    """Whether the graph must record an operator on these."""
    if S.grad_enabled:
        for t in tensors:
            if t.requires_grad:
                return True
    return False


# CPython's own references are part of what getrefcount shows, and 3.14 has fewer of them (it
# borrows): so they are measured,
# with the very statements that ask.
class _Slot:
    __slots__ = ("buffer", "storage")
    buffer: object
    storage: object


def _uses(t: object) -> int:
    return sys.getrefcount(t)


def _local_and_argument() -> int:
    t = object()
    return _uses(t)


def _local_and_slot(slot: _Slot) -> int:
    old = slot.buffer
    return sys.getrefcount(old)


def _slot_only(slot: _Slot) -> int:
    return sys.getrefcount(slot.storage)


_slot = _Slot()
_slot.buffer, _slot.storage = object(), object()
LOCAL_AND_SLOT = _local_and_slot(_slot)
SLOT = _slot_only(_slot)
LOCAL_AND_ARGUMENT = _local_and_argument()
LISTED = max([sys.getrefcount(n) for n in [object()]])
"""What a comprehension over a list sees of an object that the list alone owns."""


def give(node: Node, grad: Tensor) -> None:
    """Add a gradient to a node's buffer.

    In place if the buffer holds the last reference to a dense tensor and to its storage, else out
    of place.

    Source: ``input_buffer.cpp`` ``accumulate``.
    """
    old = node.buffer
    if old is None:
        node.buffer = grad
        return
    if (
        old.is_view
        or sys.getrefcount(old) != LOCAL_AND_SLOT
        or sys.getrefcount(old.storage) != SLOT
        or not is_dense(old)
    ):
        node.buffer = empty(old.shape, old.dtype, elementwise_strides(old.shape, (old, grad)))


def backward(loss: Tensor) -> None:
    """``loss.backward()``: the root gradient lives until the end."""
    root_grad = empty(loss.shape, loss.dtype)
    run_from(loss, root_grad)


def run_from(out: Tensor, grad: Tensor) -> None:
    """Run the graph below ``out`` on the engine's thread: no grad mode, hooks or autocast."""
    before = S.thread, S.grad_enabled, S.hooks, S.autocast
    S.thread, S.grad_enabled, S.hooks, S.autocast = "autograd", False, None, None
    assert out.node is not None
    run_graph(out.node, grad)
    S.thread, S.grad_enabled, S.hooks, S.autocast = before


def count_dependencies(root: Node) -> None:
    """``Engine::compute_dependencies``: how many gradients each node waits for."""
    stack, seen = [root], {root}
    while stack:
        for e in stack.pop().edges:
            if e is not None:
                e.waiting += 1
                if e not in seen:
                    seen.add(e)
                    stack.append(e)


def run_graph(root: Node, root_grad: Tensor) -> None:
    """``Engine::execute``: last made runs first, accumulations as soon as they are ready.

    What the dead graph still holds (leaves, contexts) goes when the last of its nodes goes that
    something outside holds: the root's tensor, the loss before it was scaled, kept outputs. It goes
    in the order of running, as torch's ``Node::release_resources`` does without recursion; CPython
    alone would defer the tail of a long chain.

    Source: ``engine.cpp``; ``torch/csrc/autograd/function.cpp`` ``gatherFunctions``.
    """
    origin = S.tape.origin
    count_dependencies(root)
    root.buffer = root_grad
    ready, done = [(-root.order, 0, root)], []
    while ready:
        node = heapq.heappop(ready)[2]
        step(node, ready)
        done.append(node)
    S.tape.enter(origin)
    for node in done:
        node.edges = ()
    del node
    bury(done, root)


def bury(done: list[Node], root: Node) -> None:
    """Let the nodes that are held from outside, the root among them, keep all the others."""
    held = {n for n in done if sys.getrefcount(n) > LISTED and not isinstance(n, AccumulateGrad)}
    held.add(root)
    rest = [n for n in done if n not in held]
    rest.reverse()
    for node in held:
        node.context = (rest, node.context)


def fit(grads: list[Tensor | None], edges: Sequence[Node | None]) -> None:
    """``validate_outputs``: each gradient is reduced to its edge's shape and cast to its dtype."""
    for i, e in enumerate(edges):
        g = grads[i]
        if e is None or g is None:
            continue
        if g.shape != e.shape:
            g = grads[i] = sum_to(g, e.shape)
        if g.dtype is not e.dtype:
            g = grads[i] = empty(g.shape, e.dtype, elementwise_strides(g.shape, (g,)))


def unpack_and_call(node: Node, grad: Tensor) -> Grads:
    """The generated ``apply``: saved variables are unpacked before it works, and die after.

    They die in reverse.
    """
    assert node.unpack is not None
    unpacked = [node.unpack(p) for p in node.saved]
    grads: Grads = node.backward(grad, unpacked) if node.reuses_saved else node.backward(grad)
    while unpacked:
        unpacked.pop()
    return grads


def step(node: Node, ready: list[tuple[float, int, Node]]) -> None:
    """``Engine::evaluate_function``.

    Call; fit the gradients to their edges; drop the incoming gradient; release what was saved, in
    order; hand the gradients on.
    """
    S.tape.enter(node.origin)
    grad, node.buffer = node.buffer, None
    edges = node.edges
    grads = list(node.backward(grad) if node.unpack is None else unpack_and_call(node, grad))  # type: ignore[arg-type]
    if node.drops_gradient:
        grad = None
    if edges:
        fit(grads, edges)
    grad = None
    saved, node.saved, node.unpack = node.saved, (), None
    for i in range(len(saved)):
        saved[i] = None
    if edges:
        node.backward = None
    for i, e in enumerate(edges):
        if e is not None:
            g, grads[i] = grads[i], None
            if g is not None:
                give(e, g)
                g = None
            e.waiting -= 1
            if not e.waiting and e.buffer is not None:
                S.node_count += 1  # among equals, first come, first served
                heapq.heappush(ready, (-e.order, S.node_count, e))
