from __future__ import annotations

from memplan.estimate import estimate
from memplan.hardware import device_names, load_device
from memplan.planner.smallest import candidates, fits, smallest_gpu


def test_the_card_fits_and_no_smaller_one_does() -> None:
    found = estimate(model="llama-3.2-1b", method="lora", seq_len=512, steps=2)
    name = smallest_gpu(found)
    assert name is not None
    card = load_device(name)
    for other in map(load_device, device_names()):
        room, least = (other.capacity_bytes or 0), (card.capacity_bytes or 0)
        assert fits(found.workload, other) is (room >= least), other.name


def test_what_fits_no_card_has_none() -> None:
    assert smallest_gpu(estimate(model="70b", method="full", seq_len=8, steps=1)) is None


def test_candidates_come_smallest_first_and_have_room() -> None:
    sizes = [d.capacity_bytes or 0 for d in candidates(36 << 30)]
    assert sizes == sorted(sizes)
    assert all(size > 36 << 30 for size in sizes)


def test_an_older_card_s_kernels_hide_no_smaller_card() -> None:
    keys = {"model": "llama-3.2-1b", "method": "lora", "seq_len": 2048, "steps": 2}
    on_t4, on_any = estimate(**keys, gpu="t4"), estimate(**keys)
    assert on_t4.peak_allocated_bytes > on_any.peak_allocated_bytes
    assert smallest_gpu(on_t4) == smallest_gpu(on_any)
