"""What a GPU's architecture decides about the memory that kernels borrow."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20

Capability = tuple[int, int]

# The architectures that torch 2.14.1+cu130 holds machine code for.
# Source: its kernels' names carry the namespace `THRUST_300001_SM_750_800_860_900_1000_1200_NS`.
BUILT: tuple[Capability, ...] = ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0))

# Items a tile by the oldest architecture that uses them: threads x items per thread.
# Source: NVIDIA/cccl v3.0.1 `cub/device/dispatch/tuning/tuning_unique_by_key.cuh`,
# policy_hub<long, long>.
UNIQUE_TILES: dict[Capability, int] = {
    (7, 5): 64 * 5,  # DefaultPolicy<11, 64>: 11 four-byte items are 5 of eight bytes
    (8, 0): 192 * 7,  # sm80_tuning<8, 8>
    (8, 6): 64 * 5,  # DefaultPolicy<11, 64> again
    (9, 0): 448 * 11,  # sm90_tuning<8, 8>
}
# Source: NVIDIA/cccl v3.0.1 `cub/device/dispatch/tuning/tuning_radix_sort.cuh`, OnesweepPolicy of
# policy_hub<long, OpaqueType<8>, unsigned long long>.
SORT_TILES: dict[Capability, int] = {
    (7, 5): 256 * 11,  # Policy700: 23 four-byte items
    (8, 0): 384 * 10,  # Policy800: 21
    (9, 0): 384 * 12,  # Policy900, OnesweepPolicyKey64: 24
}


def newest(table: dict[Capability, int], capability: Capability) -> int:
    """The entry of the newest architecture that is not newer than ``capability``."""
    known = [c for c in table if c <= capability]
    return table[max(known)] if known else table[min(table)]


@dataclass(frozen=True, slots=True)
class Kernels:
    """The facts of one GPU that kernels size their workspaces by.

    Attributes:
        compute_capability: (major, minor).
        sm_count: Streaming multiprocessors.
        threads_per_sm: Most resident threads of one of them.
        shared_memory_per_block: Most shared memory a block may opt in to. [bytes]
    """

    compute_capability: Capability = (8, 0)
    sm_count: int = 108
    threads_per_sm: int = 2048
    shared_memory_per_block: int = 163 * KIB

    @property
    def built_for(self) -> Capability:
        """The architecture whose machine code runs: the newest built one the GPU can run."""
        return max((c for c in BUILT if c <= self.compute_capability), default=BUILT[0])

    @property
    def cublas_workspace_bytes(self) -> int:
        """Workspace of one cuBLAS handle and stream, which cuBLASLt shares. [bytes]

        Source:
            pytorch/pytorch v2.14.1 ``aten/src/ATen/cuda/CublasHandlePool.cpp``
            ``parseChosenWorkspaceSize``: ``:4096:2:16:8`` below sm_90, 32 MiB on 9.x, 10.x, 12.x;
            ``getCUDABlasLtWorkspace``.
        """
        if self.compute_capability[0] >= 9:
            return 32 * MIB
        return 4096 * KIB * 2 + 16 * KIB * 8

    @property
    def cub_unique_tile(self) -> int:
        """Items a tile of ``DeviceSelect::UniqueByKey`` on two int64. [elements]"""
        return newest(UNIQUE_TILES, self.built_for)

    @property
    def cub_sort_tile(self) -> int:
        """Items a tile of ``DeviceRadixSort``, one sweep, on pairs of int64. [elements]"""
        return newest(SORT_TILES, self.built_for)
