"""The catalogue of cards, and devices from a bare capacity."""

from __future__ import annotations

import pytest

from memplan.errors import ConfigError, UnknownNameError
from memplan.hardware import device_names, load_device

GIB = 1 << 30
# The virtual GPU's table of cards: name, compute capability, SMs, threads per SM, KiB of shared
# memory per block, capacity in GiB. What decides must agree; capacities move with the driver.
VIRTUAL = (
    ("h100", (9, 0), 132, 2048, 227, 79.11),
    ("h200", (9, 0), 132, 2048, 227, 139.72),
    ("a100-40", (8, 0), 108, 2048, 163, 39.39),
    ("a100-80", (8, 0), 108, 2048, 163, 79.14),
    ("a10g", (8, 6), 80, 1536, 99, 22.06),
    ("l4", (8, 9), 58, 1536, 99, 22.03),
    ("l40s", (8, 9), 142, 1536, 99, 44.40),
    ("rtx3090", (8, 6), 82, 1536, 99, 23.69),
    ("rtx4090", (8, 9), 128, 1536, 99, 23.64),
    ("t4", (7, 5), 40, 1024, 64, 14.56),
    ("v100", (7, 0), 80, 2048, 96, 31.74),
)


@pytest.mark.parametrize(
    ("name", "capability", "sm_count", "threads", "shared", "gib"), VIRTUAL, ids=lambda v: str(v)
)
def test_facts_agree_with_the_virtual_gpu(
    name: str, capability: tuple[int, int], sm_count: int, threads: int, shared: int, gib: float
) -> None:
    device = load_device(name)
    assert device.compute_capability == capability
    assert device.sm_count == sm_count
    assert device.threads_per_sm == threads
    assert device.shared_memory_per_block == shared << 10
    assert device.capacity_bytes == pytest.approx(gib * GIB, rel=0.006)  # drivers reserve anew


@pytest.mark.parametrize("name", device_names())
def test_every_card_has_a_capacity_and_a_context_with_a_source(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert device.capacity_bytes is not None
    assert 10 * GIB < device.capacity_bytes < 200 * GIB
    assert 100 << 20 <= device.context_bytes <= 1 << 30
    assert device.source
    assert device.context_source
    assert not device.assumed


@pytest.mark.parametrize("name", ["a10g", "a100-80gb", "h100-80gb", "l40s", "l4", "h200", "t4"])
def test_names_of_the_contract_are_cards(name: str) -> None:
    assert name in device_names()


def test_names_are_found_in_any_case_and_by_alias() -> None:
    assert load_device("A10G") == load_device("a10g")
    assert load_device("H100").name == "h100-80gb"
    assert load_device("RTX 4090").name == "rtx-4090"
    assert load_device("4090").name == "rtx-4090"


@pytest.mark.parametrize(
    ("text", "capacity"),
    [
        ("24GiB", 24 << 30),
        ("24 GiB", 24 << 30),
        ("24gib", 24 << 30),
        ("24GB", 24_000_000_000),
        ("25769803776", 25_769_803_776),
        ("79.25GiB", 79 * GIB + GIB // 4),
        ("1536MiB", 1536 << 20),
    ],
)
def test_a_capacity_is_a_card_with_assumed_kernels(text: str, capacity: int) -> None:
    device = load_device(text)
    assert device.capacity_bytes == capacity
    assert device.name == text
    assert device.compute_capability == (8, 0)
    assert "8.0" in device.assumed


def test_no_card_means_no_capacity_and_assumed_kernels() -> None:
    device = load_device(None)
    assert device.capacity_bytes is None
    assert device.compute_capability == (8, 0)
    assert "8.0" in device.assumed


@pytest.mark.parametrize(
    "text", ["24", "1GiB", "0GiB", "-5GiB", "24XB", "1e9GiB", "24.5.1GiB", "9999TiB"]
)
def test_an_impossible_capacity_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="gpu"):
        load_device(text)


def test_an_unknown_card_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'a100-80gb'"):
        load_device("a100-80gib")
