"""The name of the module that is running, beside every event of torch's history.

Global forward hooks set torch's own metadata for allocations, which belongs to the thread: a
forward that checkpointing runs again in autograd's thread is named too. Hooks are called where a
forward ends by an exception as well, since checkpointing stops its second run by one.
"""

from __future__ import annotations

import threading
from typing import Any

from memplan.evidence.trace import BATCH_MARK, MODULE


class ModuleNames:
    """Names of modules as seen from the outermost one that was called.

    Attributes:
        names: Of each module, by its ``id``.
        parameters: Name of the module of each parameter, by the parameter's ``id``.
        outermost: Called with True before, with False after an outermost forward.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.parameters: dict[int, str] = {}
        self.here = threading.local()
        self.outermost: list[Any] = []

    def install(self) -> None:
        """Hook every module's forward."""
        from torch.nn.modules import module

        module.register_module_forward_pre_hook(self._enter)
        module.register_module_forward_hook(self._leave, always_call=True)

    def expect_batch(self) -> None:
        """What this thread asks for until its next module runs is the batch."""
        self._set(BATCH_MARK)

    def _enter(self, module: Any, _args: Any) -> None:
        stack = self._stack()
        if not stack and threading.current_thread() is threading.main_thread():
            for told in self.outermost:
                told(True)
        if id(module) not in self.names:
            self._learn(module, outermost=not stack)
        name = self.names.get(id(module), stack[-1] if stack else "")
        stack.append(name)
        self._set(MODULE + name)

    def _leave(self, _module: Any, _args: Any, _result: Any) -> None:
        stack = self._stack()
        if stack:
            stack.pop()
        self._set(MODULE + stack[-1] if stack else "")
        if not stack and threading.current_thread() is threading.main_thread():
            for told in self.outermost:
                told(False)

    def _learn(self, module: Any, *, outermost: bool) -> None:
        """Name a module and what is in it; one that is called on its own keeps no name."""
        if outermost:
            for name, inner in module.named_modules():
                self.names[id(inner)] = name
                self.parameters |= {id(p): name for p in inner.parameters(recurse=False)}

    def _stack(self) -> list[str]:
        if not hasattr(self.here, "stack"):
            self.here.stack = []
        stack: list[str] = self.here.stack
        return stack

    def _set(self, metadata: str) -> None:
        import torch

        torch.cuda.memory._set_memory_metadata(metadata)
