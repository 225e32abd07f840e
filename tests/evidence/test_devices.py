"""Processes, ranks and devices: what goes together, and what is said where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from memplan.errors import ConfigError
from memplan.evidence.devices import rank_alone, with_devices, world_of

SET = {"RANK": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1", "WORLD_SIZE": "4"}


def test_the_world_is_what_torchrun_says() -> None:
    assert world_of(SET) == (1, 4, 0)
    assert world_of({}) == world_of({**SET, "WORLD_SIZE": "1"}) == (0, 1, 0)


@pytest.mark.parametrize(
    ("off", "told"),
    [
        ({"LOCAL_RANK": ""}, "WORLD_SIZE is 4, but LOCAL_RANK not set"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE: expected a number, got 'many'"),
        ({"RANK": "-1"}, "RANK: expected a number"),
        ({"RANK": "4"}, "RANK is 4, but WORLD_SIZE is 4"),
    ],
)
def test_a_world_that_cannot_be_is_refused(off: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        world_of({**SET, **off})


def test_the_number_of_devices_is_that_of_the_processes() -> None:
    keys = {"model": "1b", "strategy": "FSDP2"}
    assert with_devices(keys, 4, virtual=False)["dp_size"] == 4
    assert with_devices({**keys, "dp_size": 4}, 4, virtual=False)["dp_size"] == 4
    assert with_devices({"model": "1b"}, 1, virtual=False) == {"model": "1b"}


@pytest.mark.parametrize(
    ("keys", "size", "virtual"),
    [
        ({}, 2, False),
        ({"strategy": "ddp"}, 1, False),
        ({"strategy": "ddp", "dp_size": 2}, 4, False),
        ({"strategy": "zero2"}, 2, False),
        ({"strategy": "ddp", "loop": "trainer"}, 2, False),
        ({"strategy": "ddp", "dp_size": 2}, 2, True),
        ({"strategy": "ddp", "dp_size": 32}, 1, True),
    ],
)
def test_what_does_not_go_together_is_refused(
    keys: dict[str, Any], size: int, virtual: bool
) -> None:
    with pytest.raises(ConfigError):
        with_devices(keys, size, virtual=virtual)


def test_a_rank_alone_is_on_a_machine_of_its_own() -> None:
    variables = rank_alone(3, 8)
    assert world_of(variables) == (3, 8, 0)
    assert variables["LOCAL_WORLD_SIZE"] == "1"
