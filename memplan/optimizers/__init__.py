"""Optimizers: one small class each, which allocates what the real one does, when it does.

A formula of bytes per parameter would be shorter. But states appear in the middle of the first
step, between gradients and temporaries, and the allocator's peak depends on where.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from memplan.optimizers import bnb
from memplan.optimizers.adafactor import Adafactor
from memplan.optimizers.adamw import AdamWForeach, AdamWFused, AdamWLoop
from memplan.optimizers.apollo import APOLLOAdamW, APOLLOAdamWLayerwise
from memplan.optimizers.base import Optimizer
from memplan.optimizers.clip import clip_grad_norm
from memplan.optimizers.grad_scaler import GradScaler
from memplan.optimizers.grokadamw import GrokAdamW
from memplan.optimizers.lora_fa import LoraFA
from memplan.optimizers.muon import Muon
from memplan.optimizers.rmsprop import Adagrad, RMSprop
from memplan.optimizers.schedule_free import (
    ScheduleFreeAdamW,
    ScheduleFreeRAdam,
    ScheduleFreeSGD,
)
from memplan.optimizers.sgd import SGD, SGDMomentum
from memplan.registry import Registry
from memplan.workload import Workload

Build = Callable[..., Optimizer | None]

OPTIMIZERS: Registry[Build] = Registry("optimizer")
"""Workload name -> what makes the optimizer of some parameters, with ``optim_args`` as keywords."""

OPTIMIZERS.add("adamw_fused", AdamWFused)
OPTIMIZERS.add("adamw_foreach", AdamWForeach)
OPTIMIZERS.add("adamw_loop", AdamWLoop)
OPTIMIZERS.add("adamw_8bit", partial(bnb.TwoStates, bits=8))
OPTIMIZERS.add("paged_adamw_8bit", partial(bnb.TwoStates, bits=8, is_paged=True))
OPTIMIZERS.add("paged_adamw_32bit", partial(bnb.TwoStates, bits=32, is_paged=True))
OPTIMIZERS.add("ademamix", partial(bnb.AdEMAMix, bits=32))
OPTIMIZERS.add("ademamix_8bit", partial(bnb.AdEMAMix, bits=8))
OPTIMIZERS.add("paged_ademamix_8bit", partial(bnb.AdEMAMix, bits=8, is_paged=True))
OPTIMIZERS.add("paged_ademamix_32bit", partial(bnb.AdEMAMix, bits=32, is_paged=True))
OPTIMIZERS.add("lion", partial(bnb.OneState, bits=32))
OPTIMIZERS.add("lion_8bit", partial(bnb.OneState, bits=8))
OPTIMIZERS.add("paged_lion_8bit", partial(bnb.OneState, bits=8, is_paged=True))
OPTIMIZERS.add("paged_lion_32bit", partial(bnb.OneState, bits=32, is_paged=True))
OPTIMIZERS.add("rmsprop_bnb", partial(bnb.RMSprop, bits=32))
OPTIMIZERS.add("rmsprop_bnb_8bit", partial(bnb.RMSprop, bits=8))
OPTIMIZERS.add("adafactor", Adafactor)
OPTIMIZERS.add("rmsprop", RMSprop)
OPTIMIZERS.add("adagrad", Adagrad)
OPTIMIZERS.add("muon", Muon)
OPTIMIZERS.add("apollo_adamw", APOLLOAdamW)
OPTIMIZERS.add("apollo_adamw_layerwise", APOLLOAdamWLayerwise)
OPTIMIZERS.add("schedule_free_adamw", ScheduleFreeAdamW)
OPTIMIZERS.add("schedule_free_radam", ScheduleFreeRAdam)
OPTIMIZERS.add("schedule_free_sgd", ScheduleFreeSGD)
OPTIMIZERS.add("grokadamw", GrokAdamW)
OPTIMIZERS.add("sgd", SGD)
OPTIMIZERS.add("sgd_momentum", SGDMomentum)
OPTIMIZERS.add("none", lambda params: None)


def optimizer_of(workload: Workload) -> Build:
    """What makes a workload's optimizer: LoRA-FA has one of its own, whichever is asked for."""
    has_own = workload.method == "lora_fa" and workload.optimizer != "none"
    return LoraFA if has_own else partial(OPTIMIZERS[workload.optimizer], **workload.optim_args)


__all__ = ["Build", "GradScaler", "OPTIMIZERS", "Optimizer", "clip_grad_norm", "optimizer_of"]
