"""Several ranks: the process group, and the model spread over its devices.

Every process is one rank, as ``torchrun`` starts them: it reads which one from the environment. A
rank that runs alone, on the virtual GPU, has collectives that return at once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from memplan.evidence.recorder.hooks import WATCHDOG_SECONDS
from memplan.evidence.recorder.ranks import stand_alone
from memplan.evidence.runner.alarm import Alarm

if TYPE_CHECKING:
    from memplan.evidence.runner.loops import Marks

Json = dict[str, Any]


class OneOfMany:
    """The recorder's marks for a rank by itself: a phase ends once what it exchanged is let go."""

    def __init__(self, recorder: Marks) -> None:
        self.recorder = recorder
        self.install_hooks = recorder.install_hooks
        self.end_evaluation = recorder.end_evaluation

    def end_phase(self, name: str, step: int) -> None:
        """Wait for the group's watchdog, then read the counters."""
        if step:
            time.sleep(WATCHDOG_SECONDS)
        self.recorder.end_phase(name, step)


class Group:
    """The process group of a run; without an alarm, of a rank by itself."""

    def __init__(self, alarm: Alarm | None = None) -> None:
        self.alarm = alarm

    def marks(self, recorder: Marks) -> Marks:
        """The recorder as the loop is to see it."""
        marks: Marks = OneOfMany(recorder) if self.alarm is None else recorder
        return marks

    def end(self, stopped: str | None) -> None:
        """Part, once the recording is written.

        Args:
            stopped: Why this rank did not get to the end; none if it did.
        """
        import torch.distributed as dist

        if self.alarm is not None and stopped is not None:
            self.alarm.ring(stopped)
        elif self.alarm is not None:
            self.alarm.part()
        if stopped is not None:
            os._exit(0)  # to take the group down would wait for the others' part in it
        dist.destroy_process_group()


def start_group(w: Json, *, alone: bool) -> Group:
    """Take this rank's device, and meet the others on NCCL."""
    import torch
    import torch.distributed as dist

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if alone:
        stand_alone()
        dist.init_process_group("nccl")
        return Group()
    store = dist.PrefixStore(store_prefix(w), connect(rank, size))
    dist.init_process_group("nccl", store=store, rank=rank, world_size=size)
    own = dist.PrefixStore(store_prefix(w), connect(rank, size, joins=True))
    alarm = Alarm(own, rank, size)
    alarm.listen()
    return Group(alarm)


def store_prefix(w: Json) -> str:
    """The run's own place in the store: under ``torchrun`` the store outlives many runs.

    The ranks' cards may differ; all else of their workloads is equal.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = json.dumps({k: v for k, v in w.items() if k != "gpu"}, sort_keys=True)
    return f"memplan/{attempt}/{sha256(shared.encode()).hexdigest()}"


def connect(rank: int, size: int, *, joins: bool = False) -> Any:
    """The store of the rendezvous: ``torchrun``'s own, else one that rank 0 has.

    Args:
        rank: This rank.
        size: How many there are.
        joins: Whether the store is there already.

    Source:
        pytorch/pytorch v2.14.1 torch/distributed/rendezvous.py ``_create_c10d_store``.
    """
    from torch.distributed import TCPStore

    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    hosts = rank == 0 and not has_agent and not joins
    return TCPStore(address, port, size, hosts, wait_for_workers=False)


def spread(w: Json, model: Any) -> Any:
    """The model as its strategy runs it."""
    return STRATEGIES[w["strategy"]](model)


def ddp(model: Any) -> Any:
    """A whole model on every device, its gradients exchanged."""
    import torch

    device = torch.cuda.current_device()
    return torch.nn.parallel.DistributedDataParallel(model, device_ids=[device])


def fsdp2(model: Any) -> Any:
    """A share of each parameter on every device, gathered layer by layer."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cuda", (int(os.environ["WORLD_SIZE"]),))
    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def layers_of(model: Any) -> Iterator[Any]:
    """The layers that transformers never splits, each after those inside of it."""
    names = {n for m in model.modules() for n in getattr(m, "_no_split_modules", None) or ()}
    return _named(model, names)


def _named(module: Any, names: set[str]) -> Iterator[Any]:
    for inner in module.children():
        yield from _named(inner, names)
        if type(inner).__name__ in names:
            yield inner


STRATEGIES: dict[str, Callable[[Any], Any]] = {
    "single": lambda model: model,
    "ddp": ddp,
    "fsdp2": fsdp2,
}
