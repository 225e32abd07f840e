"""Which engine answers: the byte engine where it models the workload, else the virtual one.

The byte engine mirrors what the libraries do, in milliseconds; the virtual engine has them do it,
in seconds to minutes, and needs them. Asking the user to choose was the alternative: nobody knows
what an engine covers before it says no.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memplan.errors import ConfigError, MissingError, UnsupportedError, unknown_name
from memplan.results import Estimate
from memplan.workload import Workload

ENGINES = ("auto", "bytes", "virtual")
SETUP = "memplan rehearse --setup"


def estimate(workload: Workload | None = None, /, *, engine: str = "auto", **keys: Any) -> Estimate:
    """The peak GPU memory of a training run, byte for byte what PyTorch's allocator would report.

    Args:
        workload: What is to be run, or its keys.
        engine: ``bytes``: the byte engine; ``virtual``: the libraries themselves on the virtual
            GPU; ``auto``: the first where it models the workload, else the second.
        keys: See ``Workload``.

    Raises:
        ConfigError: A key, a value or a file cannot be used.
        MissingError: It takes the virtual GPU, which is not set up.

    Example:
        >>> e = estimate(model="7b", method="lora", rank=8, gpu="a10g")
        >>> e.parameters.trainable, e.gpu.fits
        (4194304, False)
    """
    check_engine(engine)
    assumed: tuple[str, ...] = ()
    if workload is None:
        workload, assumed = Workload.resolve(keys)
    elif keys:
        workload = replace(workload, **keys)
    if engine == "virtual":
        return _virtual(workload, assumed)
    try:
        return _bytes(workload, assumed)
    except UnsupportedError as error:
        if engine == "bytes":
            raise
        return _instead(workload, assumed, error)


def check_engine(engine: str) -> None:
    """Refuse a word that is no engine."""
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)


def _bytes(workload: Workload, assumed: tuple[str, ...]) -> Estimate:
    from memplan.estimate import estimate_run
    from memplan.running import Run

    return estimate_run(Run.of(workload), assumed)


def _virtual(workload: Workload, assumed: tuple[str, ...]) -> Estimate:
    from memplan.evidence.engine import estimate_virtual

    return estimate_virtual(workload, assumed)


def _instead(workload: Workload, assumed: tuple[str, ...], error: UnsupportedError) -> Estimate:
    """The virtual engine's estimate of what the byte engine does not model.

    Raises:
        MissingError: The virtual engine would take it, and is not set up.
        UnsupportedError: Neither engine takes it.
    """
    from memplan.evidence.engine import why_not_run

    if why_not_run(workload) is not None:
        raise error
    from memplan.evidence.virtual.environment import find

    if find() is None:
        raise MissingError(
            f"{error} The virtual engine runs it, and is not set up here: {SETUP}."
        ) from None
    try:
        result = _virtual(workload, assumed)
    except ConfigError as refusal:
        raise type(refusal)(f"{error} On the virtual engine: {refusal}") from None
    return replace(result, warnings=(*result.warnings, _why_virtual(error)))


def _why_virtual(error: UnsupportedError) -> str:
    """Why the byte engine did not answer, in one line."""
    return f"the virtual engine answers, for the byte engine does not model it: {error}"
