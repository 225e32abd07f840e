"""``PYTORCH_CUDA_ALLOC_CONF``: the options of the caching allocator that move memory.

Source:
    pytorch/pytorch v2.14.1 ``c10/core/AllocatorConfig.cpp``, ``c10/cuda/CUDAAllocatorConfig.cpp``:
    ``parseArgs``; ``roundup_power2_divisions:[2:4,>:8]`` and every bound were also tried on torch
    2.14.1 itself (``>`` fills from the interval *after* the last one named).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from memplan.allocator.rounding import ROUNDUP_INTERVALS
from memplan.errors import ConfigError, UnsupportedError, unknown_name

NO_EFFECT_ON_DEVICE_MEMORY = frozenset(
    {
        "graph_capture_record_stream_reuse",
        "pinned_free_catch_all",
        "pinned_max_cached_size_mb",
        "pinned_max_round_threshold_mb",
        "pinned_num_register_threads",
        "pinned_reserve_segment_size_mb",
        "pinned_use_background_threads",
        "pinned_use_cuda_host_register",
        "release_lock_on_cudamalloc",
    }
)
"""Options of host memory, of threads and of CUDA graphs: accepted, and of no consequence here."""
MAX_MB = (1 << 64) // (1 << 20) - 1


@dataclass(frozen=True, slots=True)
class AllocatorConfig:
    """Options of the caching allocator, by torch's names.

    Attributes:
        expandable_segments: One growing segment a pool instead of many.
        max_split_size_mb: Blocks from this size on are never split; ``None``: no limit. [MiB]
        max_non_split_rounding_mb: How much too large such a block may be for a request. [MiB]
        large_segment_size_mb: Segment of blocks of more than 1 MiB and less than 10 MiB. [MiB]
        roundup_power2_divisions: Divisions of each power of two from 1 MiB on; empty: none.
        garbage_collection_threshold: Fraction of the allowed memory above which old cached
            segments go before a new one comes; 0: never. Like torch, without
            ``per_process_memory_fraction`` below 1 it does nothing.
        per_process_memory_fraction: Fraction of the card that may be taken.
    """

    expandable_segments: bool = False
    max_split_size_mb: int | None = None
    max_non_split_rounding_mb: int = 20
    large_segment_size_mb: int = 20
    roundup_power2_divisions: tuple[int, ...] = ()
    garbage_collection_threshold: float = 0.0
    per_process_memory_fraction: float = 1.0

    def __post_init__(self) -> None:
        """Hold each option to torch's own bounds.

        Raises:
            ConfigError: An option is out of bounds.
        """
        _require(self.large_segment_size_mb > 10, "large_segment_size_mb must be above 10 MiB")
        for name in ("max_split_size_mb", "max_non_split_rounding_mb"):
            value = getattr(self, name)
            _require(
                value is None or value >= self.large_segment_size_mb,
                f"{name} must be at least large_segment_size_mb, {self.large_segment_size_mb} MiB",
            )
        divisions = self.roundup_power2_divisions
        _require(
            not divisions or len(divisions) == ROUNDUP_INTERVALS,
            f"roundup_power2_divisions needs {ROUNDUP_INTERVALS} entries, or none",
        )
        _require(
            all(d == 0 or _is_power_of_two(d) for d in divisions),
            "roundup_power2_divisions: divisions must be powers of two, or 0 for none",
        )
        _require(
            0 <= self.garbage_collection_threshold < 1,
            "garbage_collection_threshold must be in (0, 1)",
        )
        _require(
            0 <= self.per_process_memory_fraction <= 1,
            "per_process_memory_fraction must be in [0, 1]",
        )


def parse_allocator_config(text: str) -> AllocatorConfig:
    """The configuration that a value of ``PYTORCH_CUDA_ALLOC_CONF`` stands for.

    Raises:
        ConfigError: The text is not of torch's form, or an option is unknown or out of bounds.
        UnsupportedError: An option changes what the simulation does not model.

    Example:
        >>> parse_allocator_config("max_split_size_mb:64").max_split_size_mb
        64
    """
    options: dict[str, object] = {}
    for name, value in _pairs(text):
        if name == "backend":
            _require_native(value)
        elif name == "throw_on_cudamalloc_oom":
            _require_retries(value)
        elif name in PARSERS:
            options[name] = PARSERS[name](name, value)
        elif name not in NO_EFFECT_ON_DEVICE_MEMORY:
            raise unknown_name(
                "option of PYTORCH_CUDA_ALLOC_CONF", name, {*PARSERS, *NO_EFFECT_ON_DEVICE_MEMORY}
            )
    segment = options.get("large_segment_size_mb")
    if segment is not None:
        options.setdefault("max_non_split_rounding_mb", segment)
    return AllocatorConfig(**options)  # type: ignore[arg-type]


def _pairs(text: str) -> list[tuple[str, str]]:
    """Names and values of ``name:value,name:[a:b,c:d]``; white space counts for nothing."""
    text = re.sub(r"\s+", "", text)
    pairs = re.findall(r"([^,:\[\]]+):(\[[^\[\]]*\]|[^,:\[\]]+)", text)
    if ",".join(f"{name}:{value}" for name, value in pairs) != text.rstrip(","):
        raise ConfigError(
            f"PYTORCH_CUDA_ALLOC_CONF {text!r}: expected option:value pairs joined by commas, such "
            "as expandable_segments:True,max_split_size_mb:128."
        )
    return pairs


def _boolean(name: str, value: str) -> bool:
    _require(value in ("True", "False"), f"{name} expects True or False, got {value!r}")
    return value == "True"


def _integer(name: str, value: str) -> int:
    _require(
        value.isascii() and value.isdigit() and len(value) <= 20,
        f"{name} expects a whole number of MiB, got {value!r}",
    )
    return min(int(value), MAX_MB)


def _fraction(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(
            f"PYTORCH_CUDA_ALLOC_CONF: {name} expects a number, got {value!r}."
        ) from None


def _threshold(name: str, value: str) -> float:
    threshold = _fraction(name, value)
    _require(0 < threshold < 1, f"{name} must be in (0, 1), got {value!r}")
    return threshold


def _divisions(name: str, value: str) -> tuple[int, ...]:
    """Divisions of each power of two, from ``4`` or from ``[256:1,512:2,>:8]`` (MiB: divisions).

    Source:
        pytorch/pytorch v2.14.1 ``c10/core/AllocatorConfig.cpp``: ``parseRoundUpPower2Divisions``.
    """
    if not value.startswith("["):
        count = _integer(name, value)
        _require(_is_power_of_two(count), f"{name} must be a power of two, got {value!r}")
        return (count,) * ROUNDUP_INTERVALS
    divisions = [0] * ROUNDUP_INTERVALS
    last = -1
    for boundary, text in _pairs(value[1:-1]):
        count = _integer(name, text)
        first = last + 1
        if boundary == ">":
            divisions[first:] = [count] * (ROUNDUP_INTERVALS - first)
            continue
        mib = _integer(name, boundary)
        _require(_is_power_of_two(mib), f"{name}: interval {boundary!r} must be a power of two")
        interval = min(mib.bit_length() - 1, ROUNDUP_INTERVALS - 1)
        if last < 0:
            divisions[:interval] = [count] * interval
        divisions[interval] = count
        last = interval
    return tuple(divisions)


PARSERS: dict[str, Callable[[str, str], object]] = {
    "expandable_segments": _boolean,
    "max_split_size_mb": _integer,
    "max_non_split_rounding_mb": _integer,
    "large_segment_size_mb": _integer,
    "roundup_power2_divisions": _divisions,
    "garbage_collection_threshold": _threshold,
    "per_process_memory_fraction": _fraction,
}


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise ConfigError(f"PYTORCH_CUDA_ALLOC_CONF: {complaint}.")


def _require_native(backend: str) -> None:
    if backend != "native":
        raise UnsupportedError(
            f"PYTORCH_CUDA_ALLOC_CONF: backend {backend!r} is not modelled; only 'native' is."
        )


def _require_retries(value: str) -> None:
    if value != "False":
        raise UnsupportedError(
            "PYTORCH_CUDA_ALLOC_CONF: throw_on_cudamalloc_oom:True is not modelled; drop it."
        )


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0
