"""As much of torch as ``memplan.watch`` touches, with a device that is a few numbers."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

GIB = 1 << 30


class Memory:
    """The device: what is allocated, and the peak of it."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self.resets = 0
        self.available = self.initialized = True

    def use(self, nbytes: int) -> None:
        """Allocate, or give back."""
        self.now += nbytes
        self.peak = max(self.peak, self.now)

    def reset(self) -> None:
        """Begin a new peak."""
        self.peak = self.now
        self.resets += 1


class OutOfMemoryError(RuntimeError):
    """torch's."""


def hook_list() -> tuple[list[Any], Callable[[Any], Any]]:
    """Hooks, and what registers one."""
    hooks: list[Any] = []

    def register(hook: Any) -> Any:
        hooks.append(hook)
        return SimpleNamespace(remove=lambda: hooks.remove(hook))

    return hooks, register


def fake_torch() -> Any:
    """A module that looks like torch."""
    torch: Any = ModuleType("torch")
    memory = torch.memory = Memory()
    torch.pre_hooks, pre = hook_list()
    torch.post_hooks, post = hook_list()
    torch.title = "NVIDIA A10G"
    torch.OutOfMemoryError = OutOfMemoryError
    torch.cuda = SimpleNamespace(
        is_available=lambda: memory.available,
        is_initialized=lambda: memory.initialized,
        memory_allocated=lambda: memory.now,
        memory_reserved=lambda: memory.now + GIB,
        max_memory_allocated=lambda: memory.peak,
        max_memory_reserved=lambda: memory.peak + GIB,
        reset_peak_memory_stats=memory.reset,
        current_device=lambda: 0,
        get_device_properties=lambda _: SimpleNamespace(total_memory=24 * GIB, name=torch.title),
    )

    class Optimizer:
        def step(self) -> None:
            for hook in torch.pre_hooks:
                hook(self, (), {})
            memory.use(2 * GIB)
            for hook in torch.post_hooks:
                hook(self, (), {})

        def zero_grad(self) -> None:
            memory.use(-GIB)

    class Module:
        def zero_grad(self) -> None:
            return None

    hooks = SimpleNamespace(
        register_optimizer_step_pre_hook=pre, register_optimizer_step_post_hook=post
    )
    torch.optim = SimpleNamespace(Optimizer=Optimizer)
    torch.modules = {"torch": torch, "torch.optim": torch.optim, "torch.optim.optimizer": hooks}
    torch.nn = SimpleNamespace(Module=Module)
    torch.autograd = SimpleNamespace(backward=lambda: memory.use(GIB))
    return torch
