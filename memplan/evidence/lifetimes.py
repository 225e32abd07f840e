"""Blocks of a snapshot's history: when each lived, and what it was, inferred from who asked.

A snapshot knows no phases. Who asks tells them apart well enough: a forward runs inside modules, a
backward in autograd's own thread, an optimizer in torch.optim. What a block was then follows from
the rule that simulated runs use, `categories.category_of`: it is what became of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memplan.categories import BACKWARD, BATCH, OTHER, WORKSPACE, Fate, category_of
from memplan.evidence.frames import RECOMPUTES, is_workspace, python_frames
from memplan.evidence.snapshot import Event, Frame, SnapshotBlock

UNKNOWN = "unknown"
FOREVER = 1 << 62
# Bytes of cuBLAS's default workspaces, which Python's frames alone do not tell apart.
# Source: pytorch/pytorch v2.14.1 aten/src/ATen/cuda/CublasHandlePool.cpp
# `parseChosenWorkspaceSize`: 4096 KiB * 2 + 16 KiB * 8, and 4096 KiB * 8 on compute capability 9.
WORKSPACE_BYTES = frozenset({8_519_680, 33_554_432})
LOADERS = frozenset(
    {"from_pretrained", "from_config", "_apply", "reset_parameters", "_load_state_dict_into_model"}
)
ADAPTS = frozenset({"get_peft_model", "inject_adapter", "update_layer", "add_adapter"})
TO_DEVICE = frozenset({"send_to_device", "_prepare_input", "_prepare_inputs", "pin_memory"})
CLIPS = frozenset({"clip_grad_norm_", "clip_grad_value_", "unscale_", "_unscale_grads_"})
STOPPED = "stopped"
PHASES = frozenset({"load", "adapter", "forward", "backward", "optimizer_step", STOPPED})
RECOMPUTE, HOST = "recompute", "host"  # words of `asker` beside the phases


@dataclass(slots=True)
class Life:
    """One block, from the event that made it to the one that gave it back.

    Attributes:
        address: On the device.
        nbytes: What was asked for. [bytes]
        frames: The stack that asked.
        metadata: What the user had set.
        birth: Number of its event; -1: before the history began.
        death: Number of the event that gave it back, or ``FOREVER``.
        asker: Who asked: a phase, ``recompute``, ``workspace``, ``host`` or ``unknown``.
        category: One of ``results.CATEGORIES``, or ``unknown``.
    """

    address: int
    nbytes: int
    frames: Sequence[Frame]
    metadata: str
    birth: int
    death: int = FOREVER
    asker: str = UNKNOWN
    category: str = UNKNOWN


@dataclass(frozen=True, slots=True)
class History:
    """All blocks that a device's events and its live blocks tell of.

    Attributes:
        lives: In the order of their births, those from before the history first.
        unknown_frees: Events that gave back a block from before the history.
        lost: Blocks that live at the end, and that the history does not know.
        gone: Blocks that the history has live at the end, and the segments do not.
    """

    lives: tuple[Life, ...]
    unknown_frees: int
    lost: int
    gone: int


def read_history(events: Sequence[Event], standing: Iterable[SnapshotBlock]) -> History:
    """The blocks of a device.

    Args:
        events: Of its allocator, oldest first; the oldest may be missing.
        standing: Blocks that are allocated at the end.
    """
    has_requests = any(e["action"] == "free_requested" for e in events)
    frees = "free_requested" if has_requests else "free_completed"
    before: list[Life] = []
    made: list[Life] = []
    live: dict[int, Life] = {}
    for index, event in enumerate(events):
        address = event.get("addr", 0)
        if event["action"] == "alloc":
            nbytes = event.get("size", 0)
            life = Life(address, nbytes, event["frames"], event["user_metadata"], index)
            live[address] = life
            made.append(life)
        elif event["action"] == frees:
            known = live.pop(address, None)
            if known is None:
                before.append(Life(address, event.get("size", 0), (), "", -1, index))
            else:
                known.death = index
    unknown_frees = len(before)
    lost = [b for b in standing if live.pop(b.address, None) is None]
    before += [Life(b.address, b.requested_bytes, b.frames, "", -1) for b in lost]
    return History((*before, *made), unknown_frees, len(lost), len(live))


def categorise(history: History, marks: Iterable[tuple[int, str]] = ()) -> None:
    """Put every block in a category.

    Args:
        history: The blocks.
        marks: Numbers of events with the phase that is known to begin there: ``optimizer_step``,
            or ``STOPPED``, where memory ran out.
    """
    lives = history.lives
    has_stacks = any(life.frames for life in lives)
    for life in lives:
        life.asker = asker(life, has_stacks=has_stacks)
    calendar = Calendar.of(lives, marks)
    for life in lives:
        life.category = category(life, calendar)


def asker(life: Life, *, has_stacks: bool) -> str:
    """Who asked for a block, as far as its stack tells."""
    if not has_stacks or (life.birth < 0 and not life.frames):
        return UNKNOWN
    if is_workspace(life.frames):
        return WORKSPACE
    python = python_frames(life.frames)
    names = {f["name"] for f in python}
    is_all_python = len(python) == len(life.frames)
    if is_all_python and life.nbytes in WORKSPACE_BYTES and life.death == FOREVER:
        return WORKSPACE
    if any(f["name"] in RECOMPUTES and f["filename"].endswith("checkpoint.py") for f in python):
        return RECOMPUTE
    if "_engine_run_backward" in names or not _in_main_thread(life.frames):
        return "backward"
    return _asker_of_python(names, [f["filename"] for f in python])


def _asker_of_python(names: set[str], files: Sequence[str]) -> str:
    if names & CLIPS or any("/torch/optim/" in f or "/bitsandbytes/optim/" in f for f in files):
        return "optimizer_step"
    if names & LOADERS:
        return "load"
    if names & ADAPTS:
        return "adapter"
    if "_call_impl" in names:
        return "forward"
    if any("/torch/nn/modules/" in f for f in files):
        return "load"
    return BATCH if names & TO_DEVICE else HOST


def _in_main_thread(frames: Iterable[Frame]) -> bool:
    """Whether a script stands below it; autograd's own threads have no Python of their own."""
    return any(f["name"] in ("<module>", "_bootstrap") for f in frames)


@dataclass(frozen=True, slots=True)
class Calendar:
    """The phases of a history.

    Attributes:
        starts: Number of the first event of each.
        names: What they are.
        last_births: Number of the last allocation of each.
        work: Numbers of the events of backward nodes.
        parameter_sizes: Sizes of what was loaded, which gradients share. [bytes]
    """

    starts: tuple[int, ...]
    names: tuple[str, ...]
    last_births: tuple[int, ...]
    work: tuple[int, ...]
    parameter_sizes: frozenset[int]

    @classmethod
    def of(cls, lives: Sequence[Life], marks: Iterable[tuple[int, str]]) -> Calendar:
        """The phases that the blocks tell of, and those that are known."""
        moments = [(life.birth, life.asker) for life in lives if life.birth >= 0]
        phases = find_phases(sorted([*moments, *marks]))
        starts = [start for start, _ in phases]
        last = list(starts)
        for birth, _ in moments:
            at = bisect_right(starts, birth) - 1
            if at >= 0:
                last[at] = max(last[at], birth)
        work = tuple(x.birth for x in lives if x.asker == "backward")
        sizes = frozenset(x.nbytes for x in lives if x.asker in ("load", "adapter"))
        return cls(tuple(starts), tuple(name for _, name in phases), tuple(last), work, sizes)

    def at(self, event: int) -> int:
        """The phase of an event; -1 before the first."""
        return bisect_right(self.starts, event) - 1

    def end(self, phase: int) -> int:
        """Number of the event that begins the next phase, or ``FOREVER``."""
        return self.starts[phase + 1] if phase + 1 < len(self.starts) else FOREVER

    def name(self, phase: int) -> str:
        """What a phase is; empty before the first and after the last."""
        return self.names[phase] if 0 <= phase < len(self.names) else ""


def find_phases(moments: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """(number of the first event, phase) of (number of an event, who asked), both in order."""
    phases: list[tuple[int, str]] = []
    current = ""
    for event, who in moments:
        phase = "backward" if who == RECOMPUTE else who
        if phase in (BATCH, HOST) and current in ("backward", "optimizer_step"):
            phase = "between"
        elif phase not in PHASES:
            continue
        if phase != current:
            phases.append((event, phase))
            current = phase
    return phases


def category(life: Life, calendar: Calendar) -> str:
    """What a block was: one of ``results.CATEGORIES``, or ``unknown``."""
    at = calendar.at(life.birth)
    phase, end = calendar.name(at), calendar.end(at)
    survives = life.death >= end or life.death == FOREVER
    if life.asker == UNKNOWN:
        return UNKNOWN
    if life.asker == HOST and phase != "forward":
        return _of_host(survives=survives, following=calendar.name(at + 1))
    if life.asker == "backward":
        is_gradient = _is_gradient(life, calendar, at, survives=survives)
        return category_of(Fate(BACKWARD, "backward", survives, is_gradient))
    if life.asker == RECOMPUTE:
        following = bisect_right(calendar.work, life.birth)
        used = following < len(calendar.work) and calendar.work[following] < life.death
        return category_of(Fate(OTHER, "backward", survives, is_used=used))
    source = life.asker if life.asker in (WORKSPACE, BATCH) else OTHER
    own = life.asker if life.asker in PHASES else phase
    return category_of(Fate(source, own, survives))


def _is_gradient(life: Life, calendar: Calendar, at: int, *, survives: bool) -> bool:
    """Whether it outlives its backward.

    Where no optimizer step is recorded, gradients may be gone before the next phase is seen; then
    what outlives the backward's last block and has a parameter's size is taken for one.
    """
    following = calendar.name(at + 1)
    if following == "optimizer_step" or (following not in ("", STOPPED) and survives):
        return survives
    return life.death > calendar.last_births[at] and life.nbytes in calendar.parameter_sizes


def _of_host(*, survives: bool, following: str) -> str:
    """What a script asked for outside of modules: a batch if a forward follows."""
    if not survives:
        return "temporaries"
    return "inputs" if following in ("forward", "between") else UNKNOWN
