"""Lines of prose about a run: what it is, where its peak stands, whether it fits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from memplan.combinations import METHOD_KEYS
from memplan.report.numbers import format_size
from memplan.results import Estimate, GpuFit, PeakMoment
from memplan.workload import KEYS

# Keys that say in which way an ordinary run is out of the ordinary, and what is ordinary.
UNUSUAL = {
    "quantization": "none",
    "autocast": "none",
    "activation_checkpointing": False,
    "attention": "sdpa",
    "attention_mask": "none",
    "strategy": "single",
    "dp_size": 1,
}


def describe_run(workload: Mapping[str, Any], *, without: Collection[str] = ()) -> str:
    """What is run, in one line, leaving out the keys ``without``.

    >>> describe_run({"model": "llama-2-7b", "method": "lora", "rank": 8, "dtype": "bfloat16",
    ...     "quantization": "nf4", "optimizer": "adamw_fused", "micro_batch_size": 1,
    ...     "seq_len": 512})
    'llama-2-7b, lora r=8, quantization nf4, bfloat16, adamw_fused, 1 x 512 tokens'
    """
    model = workload["model"]
    parts = [f"a {model.get('model_type')} model" if isinstance(model, Mapping) else str(model)]
    if "method" not in without:
        parts.append(describe_method(workload))
    for key, usual in UNUSUAL.items():
        if key not in without and workload.get(key, usual) != usual:
            parts.append(f"{key.replace('_', ' ')} {format_value(workload[key])}")
    parts += [str(workload["dtype"]), str(workload["optimizer"])]
    if not {"micro_batch_size", "seq_len"} & set(without):
        parts.append(f"{workload['micro_batch_size']} x {workload['seq_len']} tokens")
    return ", ".join(parts)


def describe_method(workload: Mapping[str, Any]) -> str:
    """The method, with the size that matters to it."""
    method = str(workload["method"])
    if method in METHOD_KEYS["rank"]:
        return f"{method} r={workload['rank']}"
    if method in METHOD_KEYS["num_virtual_tokens"]:
        return f"{method} v={workload['num_virtual_tokens']}"
    if method in METHOD_KEYS["num_trainable_layers"]:
        return f"{method} k={workload['num_trainable_layers']}"
    if workload.get("trainable"):
        return f"{method}: {format_value(workload['trainable'])}"
    return method


def describe_moment(moment: PeakMoment) -> str:
    """Where in the run a block was asked for; before the first step, the phase says it.

    >>> describe_moment(PeakMoment(step=2, phase="backward", module="lm_head", op="linear"))
    'step 2, backward, lm_head, linear'
    """
    step = f"step {moment.step}" if moment.step else ""
    parts = (step, moment.phase.replace("_", " "), moment.module, moment.op)
    return ", ".join(part for part in parts if part)


def describe_fit(gpu: GpuFit) -> str:
    """Fits or not, and by how much."""
    of = f"{format_size(gpu.capacity_bytes)} less {format_size(gpu.context_bytes)} CUDA context"
    if gpu.fits:
        return f"Fits {gpu.name}: {format_size(gpu.headroom_bytes)} to spare ({of})."
    where = f" out of memory at {describe_moment(gpu.out_of_memory)};" if gpu.out_of_memory else ""
    return (
        f"Does not fit {gpu.name}:{where} without a limit it takes "
        f"{format_size(-gpu.headroom_bytes)} more than there is ({of})."
    )


def describe_assumed(*estimates: Estimate, without: Collection[str] = ()) -> str:
    """Every default that any of the runs assumed, with its value, in one line."""
    told = {
        key: _assumed(key, estimate.workload)
        for estimate in estimates
        for key in estimate.assumed
        if key not in without
    }
    return ", ".join(told[key] for key in sorted(told, key=_order))


def _order(key: str) -> int:
    """A workload's keys as they stand there, those of the model's config last."""
    return KEYS.index(key) if key in KEYS else len(KEYS)


def _assumed(key: str, workload: Mapping[str, Any]) -> str:
    """A key with its value; one of the model's config is named alone."""
    if key not in workload:
        return key
    value = workload[key]
    return f"{key} {format_value(value)}"


def format_value(value: object) -> str:
    """A key's value as a person would write it.

    >>> format_value(None), format_value(True), format_value(["q_proj", "v_proj"])
    ('none', 'true', 'q_proj+v_proj')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value)) or "none"
    return str(value)
