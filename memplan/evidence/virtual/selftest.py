"""Checks the virtual GPU against what torch's allocator is documented to do.

A program for the Python that has torch, started with the variables of ``launch`` for an A100 of 80
GB: it imports nothing of memplan, prints a line per check, and exits with 1 when one fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

MIB = 1 << 20
# cuBLAS workspace of torch below compute capability 9.0: 4096 KiB x 2 and 16 KiB x 8.
WORKSPACE = 8 * MIB + 128 * 1024
failures: list[str] = []


def check(name: str, got: object, wanted: object) -> None:
    """Print whether a value is as it should be, and remember when it is not."""
    fine = got == wanted
    note = "" if fine else f" (wanted {wanted})"
    print(f"{'ok  ' if fine else 'FAIL'} {name}: {got}{note}")  # noqa: T201
    if not fine:
        failures.append(name)


def check_device(torch: Any) -> None:
    """The device's facts reach torch."""
    facts = torch.cuda.get_device_properties(0)
    check("a GPU is there", torch.cuda.is_available(), True)
    check("devices", torch.cuda.device_count(), int(os.environ["MEMPLAN_GPU_DEVICES"]))
    check("name", facts.name, os.environ["MEMPLAN_GPU_NAME"])
    check("capability", f"{facts.major}.{facts.minor}", os.environ["MEMPLAN_GPU_CAPABILITY"])
    check("total memory", facts.total_memory, int(os.environ["MEMPLAN_GPU_TOTAL_BYTES"]))
    sm_count = int(os.environ["MEMPLAN_GPU_SM_COUNT"])
    check("multiprocessors", facts.multi_processor_count, sm_count)
    threads = int(os.environ["MEMPLAN_GPU_THREADS_PER_SM"])
    check("threads", facts.max_threads_per_multi_processor, threads)
    check("level 2 cache", facts.L2_cache_size, int(os.environ["MEMPLAN_GPU_L2_BYTES"]))


def check_rounding(torch: Any) -> None:
    """Blocks are rounded to 512 bytes, segments to 2, 20 or whole 2 MiB."""

    def held() -> tuple[int, int]:
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    def taken(nbytes: int) -> Any:
        return torch.empty(nbytes, device="cuda", dtype=torch.uint8)

    blocks = [taken(4)]
    check("4 B: 512 B in a segment of 2 MiB", held(), (512, 2 * MIB))
    blocks.append(taken(513))
    check("513 B: 1024 B more", held(), (1536, 2 * MIB))
    blocks.append(taken(2 * MIB))
    check("2 MiB: a segment of 20 MiB", held(), (1536 + 2 * MIB, 22 * MIB))
    blocks.append(taken(11 * MIB))
    check("11 MiB: fits in it", held(), (1536 + 13 * MIB, 22 * MIB))
    blocks.append(taken(33 * MIB + 1))
    check("33 MiB + 1: a segment of its own, of whole 2 MiB", held()[1], 56 * MIB)
    blocks.clear()
    torch.cuda.empty_cache()
    check("all given back", held(), (0, 0))


def check_kernels(torch: Any) -> None:
    """Workspaces are allocated, and attention takes the kernels that it would."""
    attention = torch.nn.functional.scaled_dot_product_attention
    x = torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16)
    y = x @ x
    total = 2 * 2 * MIB + WORKSPACE
    check("a product: 2 x 2 MiB and cuBLAS's workspace", torch.cuda.memory_allocated(), total)
    del y
    options = {"device": "cuda", "dtype": torch.bfloat16}
    q = torch.randn(2, 8, 512, 64, requires_grad=True, **options)
    name = type(attention(q, q, q, is_causal=True).grad_fn).__name__
    check("causal attention", name, "ScaledDotProductFlashAttentionBackward0")
    mask = torch.zeros(2, 1, 512, 512, **options)
    name = type(attention(q, q, q, attn_mask=mask).grad_fn).__name__
    check("attention with a mask", name, "ScaledDotProductEfficientAttentionBackward0")


def check_answers(torch: Any) -> None:
    """What a program asks of values is answered as an ordinary batch would."""
    t = torch.ones(2, 9, device="cuda")
    questions: dict[str, tuple[bool, Callable[[], Any]]] = {
        "all()": (True, lambda: (t == 1).all()),
        "all() of one": (True, lambda: (t[:1, 0] == 1).all()),
        "equal": (True, lambda: torch.equal(t, t)),
        "sum == numel": (True, lambda: t.long().sum() == t.numel()),
        "any()": (False, lambda: (t == 2).any()),
        "any() of one number": (False, lambda: torch.zeros((), device="cuda").int().any()),
        "isnan": (False, lambda: torch.isnan(t.sum())),
        ">": (False, lambda: t.sum() > 0),
    }
    for question, (wanted, ask) in questions.items():
        check(f"answer to {question}", bool(ask()), wanted)
    check("what is read back is zero", torch.ones(4, device="cuda").cpu().tolist(), [0.0] * 4)
    sizes = torch.tensor([3, 5, 8]).to("cuda").cpu().tolist()
    check("what the host wrote comes back", sizes, [3, 5, 8])


def check_memory(torch: Any) -> None:
    """The device's memory ends where it should, and none of it is the host's."""
    import resource

    kept = [torch.empty(10 << 30, device="cuda", dtype=torch.uint8).zero_() for _ in range(7)]
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    check("70 GiB there, less than 1 GiB of the host's", resident < 1 << 30, True)
    try:
        kept.append(torch.empty(10 << 30, device="cuda", dtype=torch.uint8))
        message = "none"
    except torch.OutOfMemoryError as error:
        message = str(error)
    check(
        "out of memory", message.startswith("CUDA out of memory. Tried to allocate 10.00 GiB"), True
    )


def main() -> int:
    """Run all checks; the number of those that failed, at most 1."""
    import torch

    for part in (check_device, check_rounding, check_kernels, check_answers, check_memory):
        part(torch)
    print(f"{len(failures)} failed")  # noqa: T201
    return min(1, len(failures))


if __name__ == "__main__":
    sys.exit(main())
