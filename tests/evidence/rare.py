"""What random workloads seldom show, put into a drawn one: from seed 1000 on."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


def full_on_quantized(r: random.Random, w: Json) -> None:
    """Train what is not quantised: norms, embeddings, the head."""
    for key in ("rank", "alpha", "dropout", "target_modules", "bias", "adapter_dtype"):
        w.pop(key, None)
    w.pop("modules_to_save", None)
    w.pop("num_virtual_tokens", None)
    w |= {"method": "full", "quantization": r.choice(("nf4", "fp4-dq", "int8"))}
    w["prepare_kbit"] = False
    if w["dtype"] == "float16":
        w["autocast"] = "none"


def rope_type(r: random.Random, w: Json) -> None:
    """Frequencies of another kind."""
    w["model"]["rope_scaling"] = r.choice(
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            {"rope_type": "linear", "factor": 2.0},
            {"rope_type": "dynamic", "factor": 2.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
        )
    )


def lora(r: random.Random, w: Json) -> None:
    """LoRA, whatever the method was."""
    if w["method"] == "lora":
        return
    w.pop("num_virtual_tokens", None)
    w |= {"method": "lora", "rank": r.choice((3, 8, 24)), "alpha": 16, "dropout": 0.0}
    if w["optimizer"] == "none":
        w["optimizer"] = "adamw_fused"


def adapted_embedding(r: random.Random, w: Json) -> None:
    """LoRA on the embedding, the head, or both."""
    lora(r, w)
    w.pop("modules_to_save", None)
    extra = r.choice((["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]))
    w["target_modules"] = ["q_proj", "v_proj", *extra]


def saved_modules(r: random.Random, w: Json) -> None:
    """Modules trained in full beside an adapter, on a quantised base too."""
    lora(r, w)
    w["modules_to_save"] = r.choice((["lm_head"], ["embed_tokens"], ["norm"], ["input_layernorm"]))
    if w["autocast"] == "float16":
        w["autocast"] = "bfloat16" if w["dtype"] == "float32" else "none"


def base_adapters(r: random.Random, w: Json) -> None:
    """Adapters in the base's dtype, on a quantised base too."""
    lora(r, w)
    w["adapter_dtype"] = "base"
    if w["autocast"] == "float16":
        w["autocast"] = "none"


def large_rank(r: random.Random, w: Json) -> None:
    """More rank than the matrices have."""
    lora(r, w)
    w["rank"] = r.choice((512, 777, 1024))


def peft_keys(r: random.Random, w: Json) -> None:
    """PEFT's own keys that move no memory."""
    lora(r, w)
    w["peft_config"] = r.choice(({"use_rslora": True}, {"init_lora_weights": "gaussian"}))


def many_steps(r: random.Random, w: Json) -> None:
    """More steps and more micro batches."""
    w["steps"], w["gradient_accumulation_steps"] = r.choice(((5, 1), (6, 2), (2, 5), (3, 4)))


def long_sequence(r: random.Random, w: Json) -> None:
    """Past 8k tokens, in flash attention or with a mask that costs."""
    w["seq_len"], w["micro_batch_size"] = r.choice((9001, 12288, 16384)), 1
    w["attention"], w["attention_mask"] = "sdpa", "none"


def many_sequences(r: random.Random, w: Json) -> None:
    """Large micro batches of short sequences."""
    w["seq_len"], w["micro_batch_size"] = r.choice((3, 17, 64, 100)), r.choice((16, 33, 64))


def ragged_hidden(r: random.Random, w: Json) -> None:
    """A hidden size that the heads do not divide."""
    if w["model"]["model_type"] == "llama":
        w["model"]["model_type"] = "qwen3"
        w["model"].pop("mlp_bias", None)
    w["model"] |= {"hidden_size": r.choice((101, 127, 250, 1001)), "head_dim": r.choice((64, 128))}


def window_edge(r: random.Random, w: Json) -> None:
    """A sliding window as long as the sequence, or one token off."""
    window = r.choice((64, 128, 333))
    w["model"] |= {"model_type": "mistral", "sliding_window": window}
    for key in ("attention_bias", "mlp_bias", "use_sliding_window", "max_window_layers"):
        w["model"].pop(key, None)
    w["seq_len"] = window + r.choice((-1, 0, 1))
    if w["attention"] == "sdpa-flash":
        w["attention"] = "sdpa"


def mixed_layers(r: random.Random, w: Json) -> None:
    """Layers with and without a window."""
    w["model"]["model_type"] = r.choice(("qwen2", "qwen3"))
    for key in ("mlp_bias", "attention_bias"):
        w["model"].pop(key, None)
    kinds = ("full_attention", "sliding_attention")
    layers = [r.choice(kinds) for _ in range(w["model"]["num_hidden_layers"])]
    w["model"] |= {"layer_types": layers, "use_sliding_window": True, "sliding_window": 50}
    if w["attention"] == "sdpa-flash":
        w["attention"] = "sdpa"


def padding_token(r: random.Random, w: Json) -> None:
    """A config that names its padding token."""
    w["model"]["pad_token_id"] = 0


def long_prompt(r: random.Random, w: Json) -> None:
    """A soft prompt longer than the text."""
    for key in ("rank", "alpha", "dropout", "target_modules", "bias", "adapter_dtype"):
        w.pop(key, None)
    w.pop("modules_to_save", None)
    w |= {"method": "prompt_tuning", "num_virtual_tokens": r.choice((200, 513, 1000))}


def large_vocabulary(r: random.Random, w: Json) -> None:
    """More words than anybody has."""
    w["model"]["vocab_size"] = r.choice((202048, 256000, 262145))
    w["seq_len"] = min(w["seq_len"], 1024)


RARE: tuple[Callable[[random.Random, Json], None], ...] = (
    full_on_quantized,
    rope_type,
    adapted_embedding,
    saved_modules,
    base_adapters,
    large_rank,
    peft_keys,
    many_steps,
    long_sequence,
    many_sequences,
    ragged_hidden,
    window_edge,
    mixed_layers,
    padding_token,
    long_prompt,
    large_vocabulary,
)


def make_rare(r: random.Random, w: Json) -> None:
    """One or two rare things."""
    for change in r.sample(RARE, r.choice((1, 1, 2))):
        change(r, w)
