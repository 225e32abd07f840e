"""Whether bitsandbytes multiplies by a 4-bit weight in one kernel or dequantises it first.

The fused kernel needs no memory beside its output; the fall-back borrows the weight in 16 bits. The
choice is made anew for each product, from its sizes, the dtype and the architecture, by thresholds
that stand in bitsandbytes.

Source: bitsandbytes 0.50.2 backends/cuda/ops.py ``bitsandbytes::gemm_4bit``,
``_gemm_4bit_use_custom_cuda``.
"""

from __future__ import annotations

from collections.abc import Callable

from memplan.dtypes import FP16, FP32, DType
from memplan.engine.kernels import Kernels

MOST_ROWS = 1536
FEW_ROWS = 4
NEVER = 0
BLOCK = 64
SMALL_WEIGHT = 4 << 20  # elements


def uses_fused_kernel(m: int, n: int, k: int, dtype: DType, kernels: Kernels) -> bool:
    """Whether (m, k) times a 4-bit (n, k) runs in the fused kernel.

    Args:
        m: Rows of the activation.
        n: ``out_features``.
        k: ``in_features``; the fused kernel takes whole blocks of 64 only.
        dtype: Dtype of the activation.
        kernels: The GPU.
    """
    if m > MOST_ROWS or k % BLOCK:
        return False
    if m <= FEW_ROWS:
        return True
    if not has_tensor_core_kernel(dtype, kernels.compute_capability):
        return m < 8
    return m <= most_rows(m, n, k, kernels)


def has_tensor_core_kernel(dtype: DType, compute_capability: tuple[int, int]) -> bool:
    """fp32 has none, sm_75 has one for fp16 only, older cards have none."""
    if dtype is FP32 or compute_capability < (7, 5):
        return False
    return compute_capability[0] > 7 or dtype is FP16


def most_rows(m: int, n: int, k: int, kernels: Kernels) -> int:
    """The most rows for which the fused kernel is taken, ``NEVER`` for none."""
    cc, sms, blocks = kernels.compute_capability, kernels.sm_count, -(-n // 64)
    if cc == (8, 7) or cc[0] == 11:
        return NEVER
    if cc[0] == 10:
        return datacenter_blackwell(blocks, n, k, sms)
    if n * k < SMALL_WEIGHT:
        return small_weight(m, n, k, blocks, kernels)
    if m > 512:
        return NEVER
    if m < 8:
        return NEVER if dequantising_wins_below_8(m, n, k, blocks, kernels) else m
    return LADDERS.get(cc, ada)(blocks, n, k, sms)


def datacenter_blackwell(blocks: int, n: int, k: int, sms: int) -> int:
    """sm_100."""
    if blocks >= sms * 3:
        return 32
    if blocks >= sms:
        return NEVER if k >= n else 8
    return NEVER


def small_weight(m: int, n: int, k: int, blocks: int, kernels: Kernels) -> int:
    """Weights below 4 Mi elements: dequantising is dear in proportion."""
    cc, sms = kernels.compute_capability, kernels.sm_count
    if k * 2 < n:
        return short_inner(n, k, blocks, kernels)
    quarter_wave = blocks * 4 <= sms
    if cc == (8, 0) and quarter_wave:
        if k < n:
            return 384
        return 32 if blocks * 8 <= sms else 128
    if cc == (7, 5) and blocks < sms and m > 8:
        return 64
    if quarter_wave:
        return 32 if k < n or has_hbm(cc) else 23
    return 16 if blocks * 2 <= sms else NEVER


def short_inner(n: int, k: int, blocks: int, kernels: Kernels) -> int:
    """Small weights with ``k < n / 2``."""
    cc, sms = kernels.compute_capability, kernels.sm_count
    if has_hbm(cc):
        low_wave = blocks * 3 < sms
        if cc == (8, 0):
            return 1536 if low_wave else 512
        return 512 if low_wave else 320
    if cc == (7, 5):
        if blocks >= sms * 3:
            return 320
        return 64 if k >= 1024 else 96 if k >= 704 else 320
    if blocks < sms and blocks * k > sms * 320:
        return 192
    return 320


def has_hbm(compute_capability: tuple[int, int]) -> bool:
    """A100 and H100 kinds."""
    return compute_capability == (8, 0) or compute_capability[0] == 9


def dequantising_wins_below_8(m: int, n: int, k: int, blocks: int, kernels: Kernels) -> bool:
    """5 to 7 rows: the exceptions to the fused kernel, all with HBM."""
    cc, sms = kernels.compute_capability, kernels.sm_count
    is_hopper = cc[0] == 9
    if not has_hbm(cc) or m < 6 or blocks < (36 if is_hopper else 48):
        return False
    below_three_quarters, below_three_fifths = blocks * 4 < sms * 3, blocks * 5 < sms * 3
    if k > n:
        return below_three_quarters
    if k < n:
        return False
    return below_three_quarters and not below_three_fifths if is_hopper else below_three_fifths


def turing(blocks: int, n: int, k: int, sms: int) -> int:
    """sm_75, 8 rows and more."""
    if blocks >= sms * 3:
        return 128 if k < n else 64
    return 64 if blocks >= sms // 2 else 32


def ampere_hbm(blocks: int, n: int, k: int, sms: int) -> int:
    """sm_80, 8 rows and more."""
    if blocks >= sms * 3:
        return 128
    if blocks >= sms:
        return 64 if k < n else 32
    if k >= n * 3 and blocks * 4 > sms:
        return NEVER
    if k == n and blocks >= 48 and blocks * 5 < sms * 3:
        return NEVER
    return ampere_hbm_below_a_wave(blocks, n, k, sms)


def ampere_hbm_below_a_wave(blocks: int, n: int, k: int, sms: int) -> int:
    """sm_80, fewer blocks than multiprocessors."""
    if blocks * 2 < sms:
        if k <= n:
            return 128
        if blocks * 3 >= sms:
            return NEVER
    return 128 if blocks >= sms // 2 and k < n else 16


def ampere(blocks: int, n: int, k: int, sms: int) -> int:
    """sm_86, 8 rows and more."""
    if blocks >= sms:
        return 128
    return 64 if blocks >= sms // 2 else 16


def hopper(blocks: int, n: int, k: int, sms: int) -> int:
    """sm_90, 8 rows and more."""
    for waves, rows in ((3, 64), (2, 48), (1, 32)):
        if blocks >= sms * waves:
            return rows
    if blocks < sms // 2 or (k >= n and blocks * 4 < sms * 3):
        return NEVER
    return 16


def blackwell(blocks: int, n: int, k: int, sms: int) -> int:
    """sm_120, 8 rows and more."""
    for waves, rows in ((3, 256), (2, 128)):
        if blocks >= sms * waves:
            return rows
    if blocks * 5 >= sms * 4:
        return 96 if k >= n else 64
    if blocks >= sms // 2:
        return 64 if k * 2 >= n and blocks >= 128 else 8
    return 16 if k > n * 2 and blocks > 64 else 8


def grace_blackwell(blocks: int, n: int, k: int, sms: int) -> int:
    """sm_121, 8 rows and more."""
    return 256 if blocks >= sms else ada(blocks, n, k, sms)


def ada(blocks: int, n: int, k: int, sms: int) -> int:
    """sm_89 and what is not listed, 8 rows and more."""
    for waves, rows in ((3, 256), (2, 128)):
        if blocks >= sms * waves:
            return rows
    tall = k > n * 2
    if blocks * 5 >= sms * 4:
        return ada_near_a_wave(blocks, n, k, sms)
    if blocks >= sms // 2:
        return 64 if tall else 8 if blocks >= 64 else 32
    if k > n and blocks <= 48:
        return 12 if k >= n * 3 else 10
    return 16 if tall or blocks < 48 else 8


def ada_near_a_wave(blocks: int, n: int, k: int, sms: int) -> int:
    """sm_89, four fifths of a wave and more."""
    if k > n * 2 or blocks >= 200:
        return 128
    if k >= n:
        return 128 if sms >= 60 else 32
    return 64


LADDERS: dict[tuple[int, int], Callable[[int, int, int, int], int]] = {
    (7, 5): turing,
    (8, 0): ampere_hbm,
    (8, 6): ampere,
    (8, 9): ada,
    (9, 0): hopper,
    (12, 0): blackwell,
    (12, 1): grace_blackwell,
}
