"""What a GPU's architecture decides about the memory that kernels borrow."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Kernels:
    """The facts of one GPU that kernels size their workspaces by.

    Attributes:
        compute_capability: (major, minor).
        sm_count: Streaming multiprocessors.
        threads_per_sm: Most resident threads of one of them.
        shared_memory_per_block: Most shared memory a block may opt in to. [bytes]
    """

    compute_capability: tuple[int, int] = (8, 0)
    sm_count: int = 108
    threads_per_sm: int = 2048
    shared_memory_per_block: int = 163 * KIB

    @property
    def cublas_workspace_bytes(self) -> int:
        """Workspace of one cuBLAS handle and stream. [bytes]

        Source:
            pytorch/pytorch v2.14.1 ``aten/src/ATen/cuda/CublasHandlePool.cpp``
            ``getChosenWorkspaceSize``: ``:4096:2:16:8`` below sm_90, 32 MiB from it on.
        """
        if self.compute_capability[0] >= 9:
            return 32 * MIB
        return 4096 * KIB * 2 + 16 * KIB * 8

    @property
    def cub_unique_tile(self) -> int:
        """Items a tile of ``DeviceSelect::UniqueByKey`` on two int64. Inferred from experiments."""
        if self.compute_capability >= (9, 0):
            return 4608
        return 1280 if self.compute_capability == (8, 0) else 320

    @property
    def cub_sort_tile(self) -> int:
        """Items a tile of ``DeviceRadixSort`` on int64 pairs. Inferred from experiments."""
        return 4608 if self.compute_capability >= (9, 0) else 3840
