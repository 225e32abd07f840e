"""What the driver says of a card: its version, and the memory in use that nvidia-smi shows.

NVML is called directly, because it comes with every driver and a Python package for it would be one
more dependency; without it there is no answer, and never an error.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
INTERVAL_SECONDS = 0.02
TEXT_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE, the longest of its texts


class Memory(ctypes.Structure):
    """``nvmlMemory_v2_t``: what the driver keeps for itself is not in ``used``."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("total", ctypes.c_ulonglong),
        ("reserved", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


MEMORY_VERSION = ctypes.sizeof(Memory) | 2 << 24


class Nvml:
    """The driver's library, started; `open_nvml` makes one."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def driver_version(self) -> str | None:
        """Version of the driver."""
        return self._text("nvmlSystemGetDriverVersion")

    def device(self, uuid: str) -> ctypes.c_void_p | None:
        """The card of a UUID as torch writes it, with or without ``GPU-``."""
        handle = ctypes.c_void_p()
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        found = self._call("nvmlDeviceGetHandleByUUID", name.encode(), ctypes.byref(handle))
        return handle if found else None

    def used_bytes(self, device: ctypes.c_void_p) -> int | None:
        """Memory in use on the card, by whatever process. [bytes]"""
        memory = Memory(version=MEMORY_VERSION)
        if not self._call("nvmlDeviceGetMemoryInfo_v2", device, ctypes.byref(memory)):
            return None
        return int(memory.used)

    def close(self) -> None:
        """Stop the library."""
        self._call("nvmlShutdown")

    def _text(self, function: str) -> str | None:
        buffer = ctypes.create_string_buffer(TEXT_BYTES)
        if not self._call(function, buffer, ctypes.c_uint(TEXT_BYTES)):
            return None
        return buffer.value.decode("utf-8", "replace")

    def _call(self, function: str, *args: Any) -> bool:
        """Whether the call is there and succeeded."""
        try:
            return int(getattr(self._library, function)(*args)) == 0
        except AttributeError:
            return False


def open_nvml(load: Callable[[str], Any] = ctypes.CDLL) -> Nvml | None:
    """NVML, or None where there is no driver."""
    try:
        library = load(LIBRARY)
        return Nvml(library) if library.nvmlInit_v2() == 0 else None
    except (OSError, AttributeError):
        return None


def driver_version() -> str | None:
    """Version of the driver, or None where there is none."""
    nvml = open_nvml()
    if nvml is None:
        return None
    try:
        return nvml.driver_version()
    finally:
        nvml.close()


class Watch:
    """Looks at a card's memory in use again and again while a ``with`` block runs.

    Attributes:
        before_bytes: In use when the block began; None: nobody to ask. [bytes]
        peak_bytes: The most that was seen within it. [bytes]
    """

    def __init__(self, uuid: str | None, *, nvml: Nvml | None = None) -> None:
        self.before_bytes: int | None = None
        self.peak_bytes: int | None = None
        self._nvml = nvml
        self._device = None if nvml is None or not uuid else nvml.device(uuid)
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._look()
        self.before_bytes = self.peak_bytes
        if self.peak_bytes is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            self._look()

    def _look(self) -> None:
        if self._nvml is None or self._device is None:
            return
        used = self._nvml.used_bytes(self._device)
        if used is not None:
            self.peak_bytes = max(used, self.peak_bytes or 0)
