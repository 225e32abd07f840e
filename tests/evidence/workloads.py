"""Random workloads in the keys of ``memplan.Workload``: the same seed gives the same workload.

Values that are ``Workload``'s own defaults are left out. What the libraries would refuse is avoided
where the reason is known; the rest shows when it is measured. From seed 1000 on, each workload has
something that is rare.
"""

from __future__ import annotations

import random
from typing import Any

from tests.evidence.rare import make_rare

Json = dict[str, Any]

GPUS = (
    "a100-80gb", "a100-40gb", "a10g", "rtx-3090", "l4", "l40s", "rtx-4090", "h100-80gb", "h200",
)  # fmt: skip
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
OPTIMIZERS = (
    "adamw_fused", "adamw_fused", "adamw_foreach", "adamw_foreach", "adamw_loop", "adamw_8bit",
    "paged_adamw_8bit", "sgd", "sgd_momentum", "none",
)  # fmt: skip
LENGTHS = (
    1,
    2,
    5,
    7,
    16,
    31,
    64,
    100,
    128,
    200,
    255,
    256,
    300,
    333,
    400,
    512,
    640,
    777,
    1000,
    1024,
)
LONG = (1300, 1536, 2000, 2048, 3000, 3071, 3073, 4096, 4100, 5000, 8192)
VOCABULARIES = (97, 997, 1000, 4095, 10000, 32000, 32001, 50257, 128256, 151936)

MIB = 1 << 20
FIRST_RARE = 1000
DEFAULTS: Json = {
    "dtype": "bfloat16",
    "autocast": "none",
    "method": "full",
    "dropout": 0.0,
    "gradient_accumulation_steps": 1,
    "activation_checkpointing": False,
    "attention": "sdpa",
    "attention_mask": "none",
    "keep_outputs": False,
    "use_cache": False,
}

# Shapes of models that people fine-tune:
# (family, hidden, intermediate, layers, heads, kv heads, head_dim, vocab, tied)
REAL = (
    ("llama", 4096, 11008, 32, 32, 32, None, 32000, False),
    ("llama", 5120, 13824, 40, 40, 40, None, 32000, False),
    ("llama", 8192, 28672, 70, 64, 8, None, 32000, False),
    ("llama", 4096, 14336, 32, 32, 8, None, 128256, False),
    ("llama", 2048, 8192, 16, 32, 8, 64, 128256, True),
    ("llama", 3072, 8192, 28, 24, 8, 128, 128256, True),
    ("llama", 2048, 5632, 22, 32, 4, None, 32000, False),
    ("mistral", 4096, 14336, 32, 32, 8, None, 32000, False),
    ("qwen2", 896, 4864, 24, 14, 2, None, 151936, True),
    ("qwen2", 1536, 8960, 28, 12, 2, None, 151936, True),
    ("qwen2", 3584, 18944, 28, 28, 4, None, 152064, False),
    ("qwen3", 1024, 3072, 28, 16, 8, 128, 151936, True),
    ("qwen3", 4096, 12288, 36, 32, 8, 128, 151936, False),
)


def draw(seed: int) -> Json:
    """The workload of that seed."""
    r = random.Random(seed)
    real = r.random() < 0.12
    w: Json = {"model": draw_real_model(r) if real else draw_model(r)}
    w |= {"loop": "plain", "gpu": r.choice(GPUS)}
    w |= draw_precision(r) | draw_method(r, w["model"])
    draw_quantization(r, w)
    draw_adapter_dtype(r, w)
    draw_shape(r, w, real)
    draw_attention(r, w)
    draw_options(r, w)
    draw_optimizer(r, w)
    draw_flash(r, w)
    if seed >= FIRST_RARE:
        make_rare(r, w)
    return {key: value for key, value in w.items() if DEFAULTS.get(key, ()) != value}


def draw_for_preset(number: int, name: str) -> Json:
    """A preset under one of three methods that people use."""
    kinds: tuple[Json, ...] = (
        {"method": "lora", "target_modules": "all-linear"},
        {"method": "lora", "quantization": "nf4-dq", "activation_checkpointing": True},
        {"activation_checkpointing": True, "optimizer": "adamw_8bit"},
    )
    common = {"model": name, "loop": "plain", "gpu": "h200", "seq_len": 1024, "steps": 2}
    return common | {"max_grad_norm": 1.0, "optimizer": "adamw_fused"} | kinds[number % 3]


def draw_card(seed: int, allocated: int, reserved: int) -> Json:
    """A card that a run with these peaks just fits, needs its cache back for, or does not fit.

    Small runs get an 8 GiB card whose context leaves no more: transformers' warm-up wants 1.2 GiB.
    """
    r = random.Random(f"card {seed}")
    rooms = (
        reserved,
        reserved - r.choice((2, 4, 8, 20)) * MIB,
        r.randint(allocated, reserved),
        allocated + r.randrange(0, 40) * MIB,
        r.randint(allocated * 9 // 10, allocated),
        allocated // 2,
    )
    room_mib = max(1, -(-r.choice(rooms[:5] if maybe(r, 0.9) else rooms) // MIB))
    if room_mib < 6 * 1024:
        return {"capacity_gib": 8.0, "context_mib": 8 * 1024 - room_mib}
    context_mib = r.choice((300, 450, 612))
    return {"capacity_gib": (room_mib + context_mib) / 1024, "context_mib": context_mib}


def maybe(r: random.Random, probability: float) -> bool:
    """True that often."""
    return r.random() < probability


def draw_real_model(r: random.Random) -> Json:
    """A model in the shape of a published one."""
    family, hidden, intermediate, layers, heads, kv, head_dim, vocab, tied = r.choice(REAL)
    model: Json = {
        "model_type": family,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": tied,
    }
    if head_dim:
        model["head_dim"] = head_dim
    if family == "mistral":
        model["sliding_window"] = None
    return model


def draw_heads(r: random.Random) -> Json:
    """Hidden size, heads and head_dim: with a hidden size of its own, or heads that divide it."""
    kv = r.choice((1, 1, 2, 2, 3, 4, 5, 8))
    heads = kv * r.choice((1, 1, 2, 3, 4, 7))
    keys: Json = {"num_attention_heads": heads, "num_key_value_heads": kv}
    head_dim = r.choice((32, 40, 64, 64, 72, 80, 96, 112, 128, 128, 192, 256, 36, 100))
    if maybe(r, 0.3):
        return keys | {"hidden_size": heads * head_dim}
    per_head = r.choice((32, 48, 64, 65, 88, 111, 128, 130, 160))
    return keys | {"hidden_size": heads * per_head, "head_dim": head_dim}


def draw_model(r: random.Random) -> Json:
    """A model nobody trained: odd sizes on purpose."""
    family = r.choice(FAMILIES)
    layers = r.choice((1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 12, 24, 70)[: 14 if maybe(r, 0.3) else 8])
    model: Json = {"model_type": family, "num_hidden_layers": layers} | draw_heads(r)
    model["intermediate_size"] = r.choice((r.randrange(32, 3000), 8 * r.randrange(8, 400)))
    model["vocab_size"] = r.choice((*VOCABULARIES, r.randrange(50, 60000)))
    model["max_position_embeddings"] = 16384
    model["tie_word_embeddings"] = maybe(r, 0.4)
    if family in ("llama", "qwen3") and maybe(r, 0.25):
        model["attention_bias"] = True
    if family == "llama" and maybe(r, 0.25):
        model["mlp_bias"] = True
    return model | draw_window(r, family, layers)


def draw_window(r: random.Random, family: str, layers: int) -> Json:
    """Sliding windows, where the family has them."""
    if family == "mistral":
        return {"sliding_window": r.choice((None, None, 4096, 64, 100, 512))}
    if family in ("qwen2", "qwen3") and maybe(r, 0.2):
        window = r.choice((50, 64, 256, 2048))
        first = r.randrange(0, layers + 1)
        return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": first}
    return {}


def draw_precision(r: random.Random) -> Json:
    """dtype of the weights and autocast."""
    dtype = r.choice(("bfloat16", "bfloat16", "bfloat16", "float32", "float32", "float16"))
    autocast = r.choice(("none", "none", "bfloat16", "float16"))
    if dtype == "float16":
        autocast = r.choice(("none", "none", "float16"))
    if dtype == "bfloat16" and autocast == "float16":
        autocast = "bfloat16"
    return {"dtype": dtype, "autocast": autocast}


def draw_method(r: random.Random, model: Json) -> Json:
    """full, lora, prompt_tuning or frozen, with their own keys."""
    method = r.choices(("full", "lora", "prompt_tuning", "frozen"), (28, 47, 17, 8))[0]
    w: Json = {"method": method}
    if method == "prompt_tuning":
        w["num_virtual_tokens"] = r.choice((1, 2, 8, 20, 20, 33, 100))
    if method == "lora":
        w |= {"rank": r.choice((1, 2, 4, 8, 8, 13, 16, 32, 64, 100, 256)), "alpha": 16}
        w["dropout"] = r.choice((0.0, 0.0, 0.05, 0.1))
        w |= draw_targets(r)
        if maybe(r, 0.15):
            w["bias"] = r.choice(("all", "lora_only"))
        if maybe(r, 0.15):
            choices = (["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"])
            w["modules_to_save"] = r.choice(choices)
    return w


def draw_targets(r: random.Random) -> Json:
    """Target modules: PEFT's default, all, a list, one, or a regular expression."""
    kind = r.choices(("default", "all", "list", "one", "regex", "head"), (20, 35, 20, 10, 10, 5))[0]
    if kind == "default":
        return {}
    if kind == "all":
        return {"target_modules": "all-linear"}
    if kind == "list":
        return {"target_modules": r.sample(LINEARS, r.randrange(2, 6))}
    if kind == "one":
        return {"target_modules": [r.choice(LINEARS)]}
    if kind == "head":
        return {"target_modules": ["q_proj", "lm_head"]}
    patterns = (
        r".*layers\.0\..*(q|k|v)_proj",
        r".*mlp\.(up|down)_proj",
        r".*self_attn\.[a-z]+_proj",
    )
    return {"target_modules": r.choice(patterns)}


def draw_quantization(r: random.Random, w: Json) -> None:
    """A quantised base for the methods that leave it alone."""
    if w["method"] == "full" or maybe(r, 0.5):
        return
    w["quantization"] = r.choice(
        ("nf4", "nf4", "nf4-dq", "nf4-dq", "fp4", "fp4-dq", "int8", "int8")
    )
    if maybe(r, 0.3):
        w["prepare_kbit"] = False
    if w["method"] == "lora":
        w.pop("modules_to_save", None)


def draw_adapter_dtype(r: random.Random, w: Json) -> None:
    """LoRA matrices in the base's 16 bits, as ``autocast_adapter_dtype=False`` leaves them."""
    plain = w["method"] == "lora" and "quantization" not in w
    if plain and w["dtype"] != "float32" and w["autocast"] != "float16" and maybe(r, 0.3):
        w["adapter_dtype"] = "base"


def draw_shape(r: random.Random, w: Json, real: bool) -> None:
    """Batch, length, accumulation, steps."""
    long = maybe(r, 0.25)
    w["seq_len"] = r.choice(LONG if long else LENGTHS)
    w["micro_batch_size"] = r.choice((1, 1, 2) if long or real else (1, 1, 2, 3, 4, 5, 7, 8))
    w["gradient_accumulation_steps"] = r.choice((1, 1, 1, 2, 3))
    w["steps"] = r.choice((1, 2, 2, 2, 3, 3, 4))


def draw_attention(r: random.Random, w: Json) -> None:
    """The attention kernel and the mask."""
    w["attention_mask"] = r.choice(("none", "none", "none", "padding"))
    kernels = ["sdpa"] * 8 + ["eager"] * 3 + ["sdpa-math", "sdpa-math", "sdpa-efficient"]
    w["attention"] = r.choice(kernels)
    quadratic = w["attention"] in ("eager", "sdpa-math") or w["attention_mask"] == "padding"
    if quadratic and w["seq_len"] > 2048:
        w["seq_len"] = r.choice((1300, 1536, 2000, 2048))


def draw_options(r: random.Random, w: Json) -> None:
    """Checkpointing and what the loop keeps."""
    w["activation_checkpointing"] = r.choice((False, False, True, "reentrant"))
    w["keep_outputs"] = maybe(r, 0.2)
    w["use_cache"] = maybe(r, 0.2)


def draw_optimizer(r: random.Random, w: Json) -> None:
    """Optimizer and clipping; a scaler wants an optimizer and gradients that are not fp16."""
    w["optimizer"] = "none" if w["method"] == "frozen" else r.choice(OPTIMIZERS)
    w["max_grad_norm"] = r.choice((0.0, 0.0, 1.0))
    if w["autocast"] == "float16" and w["optimizer"] == "none":
        w["max_grad_norm"] = 0.0
    if w["autocast"] == "float16" and w["dtype"] == "float16" and w["method"] == "full":
        w["autocast"] = "none"


def draw_flash(r: random.Random, w: Json) -> None:
    """Now and then flash attention is forced: it takes 16 bits and no mask."""
    half = w["dtype"] != "float32" or w["autocast"] != "none"
    masked = w["attention_mask"] != "none" or w["model"].get("sliding_window")
    if half and not masked and w["attention"] == "sdpa" and maybe(r, 0.2):
        w["attention"] = "sdpa-flash"
