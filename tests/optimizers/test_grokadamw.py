from __future__ import annotations

from memplan.dtypes import FP32
from memplan.optimizers.grokadamw import GrokAdamW
from tests.optimizers.steps import allocated_in_steps

SIZE = 100 * 4
STATES = [SIZE, SIZE, SIZE]
CLIP = [4, 4, 4, 4, 4, 4, 4, 4]  # partial and whole norm, their stack and norm, the factor
UPDATE = [SIZE, SIZE, SIZE]  # lamb * grok_ema, plus grad, sqrt


def test_states_come_to_the_device_in_each_step_anew() -> None:
    step = [*STATES, *CLIP, *UPDATE]
    assert allocated_in_steps(GrokAdamW, 2, [(100,)], FP32) == step * 2
