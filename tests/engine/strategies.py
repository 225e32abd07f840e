"""Random small workloads for property tests: many features at once, few tokens."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SMALL: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 9,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 128,
    "intermediate_size": 300,
    "vocab_size": 3000,
}
LAYERS = st.integers(7, 11)


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    """Config keys of a decoder of 7 to 11 layers."""
    kv = draw(st.sampled_from([1, 2, 3]))
    heads = kv * draw(st.sampled_from([1, 2]))
    return {
        "model_type": draw(st.sampled_from(["llama", "mistral", "qwen2", "qwen3"])),
        "num_hidden_layers": draw(LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "hidden_size": heads * draw(st.sampled_from([32, 50, 64])),
        "head_dim": draw(st.sampled_from([32, 40, 64])),
        "intermediate_size": draw(st.integers(64, 700)),
        "vocab_size": draw(st.sampled_from([997, 3200])),
        "tie_word_embeddings": draw(st.booleans()),
        "sliding_window": None,
    }


@st.composite
def workloads(draw: st.DrawFn) -> dict[str, Any]:
    """Workload keys that memplan takes together."""
    method = draw(st.sampled_from(["full", "lora", "prompt_tuning", "frozen"]))
    keys: dict[str, Any] = {
        "model": draw(models()),
        "method": method,
        "loop": "plain",
        "micro_batch_size": draw(st.sampled_from([1, 2, 3])),
        "seq_len": draw(st.sampled_from([1, 7, 64, 200])),
        "steps": draw(st.sampled_from([1, 2, 3, 5])),
        "gradient_accumulation_steps": draw(st.sampled_from([1, 2, 5])),
        "activation_checkpointing": draw(st.sampled_from([False, True, "reentrant"])),
        "attention": draw(st.sampled_from(["sdpa", "eager", "sdpa-math"])),
        "attention_mask": draw(st.sampled_from(["none", "padding"])),
        "keep_outputs": draw(st.booleans()),
        "use_cache": draw(st.booleans()),
        "max_grad_norm": draw(st.sampled_from([0.0, 1.0])),
        "gpu": draw(st.sampled_from(["a100-80gb", "l4", "h100-80gb"])),
    }
    if draw(st.booleans()):
        keys |= {"dtype": "float32", "autocast": "bfloat16"}
    if method != "frozen":
        optimizers = ["adamw_fused", "adamw_foreach", "adamw_loop", "sgd", "sgd_momentum"]
        keys["optimizer"] = draw(st.sampled_from([*optimizers, "adamw_8bit"]))
    if method == "lora":
        keys["dropout"] = draw(st.sampled_from([0.0, 0.1]))
        keys["target_modules"] = draw(st.sampled_from(["all-linear", ["q_proj"], ["down_proj"]]))
    if method != "full":
        keys["quantization"] = draw(st.sampled_from(["none", "none", "nf4", "nf4-dq", "int8"]))
    return keys
