"""PEFT's MetaMathQA benchmark, run by run: what its script does, and which inputs it leaves open.

The script trains Llama-3.2-3B on one L40S, on batches of four that are padded to their longest
sample. It publishes ``max_memory_reserved`` of the process and the mean of ``memory_allocated``
after each step, but no length of any batch. Three lengths are therefore inputs that memplan lacks:

``MEAN_LENGTH`` and ``LONGEST_LENGTH`` were each inferred from one row, of plain LoRA
(``INFERRED_FROM``): the length in tokens at which the estimate is nearest to that row. These two
rows prove nothing and are not counted. Every other row is estimated with the same two
lengths, never with its own. Rows of LoRA and rsLoRA are replicates of the two in all but library
versions; full fine-tuning and prompt tuning share nothing with them but the lengths, so it is
their errors that say something. On its own, prompt tuning would give a mean length of 222 (without
padding the runs' mean is 210), and the collectors' own estimates of the longest were 700 and 734.

How this was arrived at: three equal batches, as a plain workload has them, were tried first. They
would need 702 tokens for LoRA but 725 for prompt tuning, and give full fine-tuning 42e9 bytes where
38.9e9 were measured. The order of the batches, the emptied cache and the late ``zero_grad`` were
then read from the script, and a few lengths of the two batches before the longest were tried,
before the mean and a round number were settled on. So the sequence was chosen knowing the
measurements; the errors that remain in reserved memory are no blind test of it.
``memory_allocated`` after a step needs none of this, only the mean length.

Source:
    huggingface/peft ``method_comparison/MetaMathQA/`` ``run.py`` ``train``, ``utils.py``
    ``BucketIterator`` and ``init_accelerator`` at d787f51bb: buckets of 80 samples, cut into 20
    batches from the longest to the shortest; so the longest batch of all opens a bucket and follows
    the shortest of the bucket before. The tokenizer's mask goes to the model, and in a batch of
    four of different length it pads, so a 4-D mask reaches the kernel. ``outputs`` lives until the
    next step's; ``use_cache`` is left on; gradients are dropped at the start of a step.
    ``empty_cache`` runs after every step until 90d3fc05d (2025-11-13), after every tenth since: in
    both, between the two batches above. Not modelled: the generation in between (with activation
    checkpointing, a whole run with it peaked at 14.2e9 bytes), and the thousands of batches before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memplan.evidence.lengths import Batch
from memplan.method_table import BY_NAME
from memplan.peft_options import PEFT_WORDS

MEAN_LENGTH = 224
"""Mean padded length over the 5,000 steps, inferred from one row; see above. [tokens]"""
LONGEST_LENGTH = 697
"""Longest padded length, inferred from one row; see above. [tokens]"""
SHORTEST_LENGTH = 100
"""Padded length of a bucket's last batch: the four shortest of 80. [tokens]

Assumption: a round number. From 60 to 120 the estimates of LoRA move by 0.3 %, those of full
fine-tuning by 0.9 %, those of prompt tuning by 2.4 %: what is fragmentation in them depends on the
batches before, and so does any statement about ``max_memory_reserved`` below that.
"""
INFERRED_FROM = ("peft-mm-lora-rank64-20260715-maxres", "peft-mm-lora-rank64-20260715-allocavg")
EMPTIES_SELDOM_SINCE = "2025-11-13"
WORDS = {"bone": "miss", "lora(rslora)": "rslora", "osf(near-full, SVD subspace)": "osf"}
"""The collection's words for methods that memplan calls otherwise; MiSS was called Bone before."""
SETTLED = (
    *("peft_type", "task_type", "token_dim", "num_transformer_submodules", "num_attention_heads"),
    *("num_layers", "encoder_hidden_size", "use_dora", "use_rslora", "qalora_group_size"),
)
"""Keys that the method's name says already, that PEFT reads off the model, or that do nothing.

``qalora_group_size`` without ``use_qalora``, ``encoder_hidden_size`` without a projection.
"""
COMMON: Mapping[str, Any] = {
    "loop": "plain",  # the script's own
    "dtype": "bfloat16",
    "optimizer": "adamw_foreach",
    "attention_mask": "padding",
    "keep_outputs": True,
    "use_cache": True,
    "gpu": "l40s",
}
LENGTHS_NOTE = (
    f"lengths are not published: longest {LONGEST_LENGTH} and mean {MEAN_LENGTH} tokens, each "
    f"inferred from one LoRA row (not counted) and the same for all; shortest {SHORTEST_LENGTH}, "
    "assumed"
)


@dataclass(frozen=True, slots=True)
class Case:
    """What is estimated for a record.

    Attributes:
        keys: The workload.
        quantity: ``reserved``: the process's peak; ``after_step``: allocated at the end of the
            optimizer's step.
        batches: Batches that are run one after the other; none: the workload's own steps.
        note: Inputs that were inferred or assumed.
    """

    keys: Mapping[str, Any]
    quantity: str
    batches: tuple[Batch, ...] = ()
    note: str = ""


def case_of(row: Mapping[str, Any]) -> Case:
    """What to estimate for a row of the benchmark."""
    keys = {
        **COMMON,
        "model": row["model_id"],
        "micro_batch_size": row["micro_batch_size"],
        "gradient_accumulation_steps": row["grad_accum"],
        "activation_checkpointing": row["grad_checkpointing"],
        "max_grad_norm": row["optimizer"]["grad_norm_clip"],
        **_method_keys(row),
    }
    if row["metric"] == "max_memory_reserved":
        keys["seq_len"] = LONGEST_LENGTH
        return Case(keys, "reserved", _batches(row["date"]), LENGTHS_NOTE)
    return Case({**keys, "seq_len": MEAN_LENGTH}, "after_step", (), LENGTHS_NOTE)


def method_of(word: str) -> str:
    """The workload's word for a method of the collection."""
    return WORDS.get(word, word)


def _method_keys(row: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter's configuration in the workload's words; what has none is PEFT's own."""
    method, adapter = method_of(row["method"]), row.get("adapter", {})
    given = {PEFT_WORDS.get(k, k): v for k, v in adapter.items() if k not in SETTLED}
    if "target_modules" in given:
        given["target_modules"] = tuple(sorted(given["target_modules"]))
    own = {k: v for k, v in given.items() if k in BY_NAME[method].keys}
    rest = {k: v for k, v in given.items() if k not in own}
    return {"method": method, **own, **({"peft_config": rest} if rest else {})}


def _batches(date: str) -> tuple[Batch, ...]:
    """A batch of mean length, the shortest, then the longest of the run."""
    seldom = date >= EMPTIES_SELDOM_SINCE
    return Batch(MEAN_LENGTH, not seldom), Batch(SHORTEST_LENGTH, True), Batch(LONGEST_LENGTH)
