from __future__ import annotations

from typing import Any

import pytest

import memplan
from memplan.coverage import why_not_modelled
from memplan.errors import ConfigError
from memplan.vocabulary import HQQ, TORCHAO


def workload(**keys: Any) -> memplan.Workload:
    made, _ = memplan.Workload.resolve(model="7b", loop="plain", **{"method": "lora", **keys})
    return made


@pytest.mark.parametrize("scheme", [*TORCHAO, *HQQ])
@pytest.mark.parametrize("method", ["lora", "rslora", "prompt_tuning", "frozen"])
def test_every_scheme_is_modelled_under_the_methods_that_were_compared(
    scheme: str, method: str
) -> None:
    assert why_not_modelled(workload(quantization=scheme, method=method)) is None


def test_other_methods_are_for_the_virtual_engine() -> None:
    why = why_not_modelled(workload(quantization="fp8", method="dora"))
    assert why is not None
    assert "fp8 under dora is not modelled; under lora, rslora" in why


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"quantization": "int4-torchao"}, "takes int8 weights only; use int8-torchao"),
        ({"quantization": "hqq-4bit", "target_modules": "all-linear"}, "name them, as in q_proj"),
        ({"quantization": "hqq-4bit-g32", "autocast": "float16"}, "set autocast: none"),
    ],
)
def test_what_the_libraries_refuse_is_refused_by_name(keys: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        workload(**keys)


def test_old_int8_layers_are_not_modelled() -> None:
    old = {"bitsandbytes": "0.43.1"}
    assert why_not_modelled(workload(quantization="nf4", versions=old)) is None
    why = why_not_modelled(workload(quantization="int8", versions=old))
    assert why == "versions: int8 of bitsandbytes 0.43.1 is not modelled; its 4-bit layers are."
