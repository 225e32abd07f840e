"""The reparameterisations beside LoRA: each method's file, by its name."""

from __future__ import annotations

from collections.abc import Callable

from memplan.engine.nn import Module
from memplan.methods import (
    adalora,
    deft,
    delora,
    glora,
    gralora,
    hira,
    hra,
    lily,
    loha,
    lokr,
    miss,
    oft,
    peanut,
    psoft,
    randlora,
    road,
    tinylora,
    vblora,
    vera,
)
from memplan.workload import Workload

METHODS: dict[str, Callable[[Module, Workload], Module]] = {
    "adalora": adalora.apply,
    "loha": loha.apply,
    "lokr": lokr.apply,
    "vera": vera.apply,
    "pvera": vera.apply_pvera,
    "oft": oft.apply,
    "miss": miss.apply,
    "hira": hira.apply,
    "glora": glora.apply,
    "delora": delora.apply,
    "road": road.apply,
    "gralora": gralora.apply,
    "peanut": peanut.apply,
    "hra": hra.apply,
    "randlora": randlora.apply,
    "lily": lily.apply,
    "tinylora": tinylora.apply,
    "deft": deft.apply,
    "psoft": psoft.apply,
    "vblora": vblora.apply,
}
