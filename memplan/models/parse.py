"""From the keys of a ``config.json`` to a `ModelConfig`, as transformers 5.18 resolves them.

Source: huggingface/transformers v5.18.0 src/transformers/models/{llama,mistral,qwen2,qwen3}/
configuration_*.py (class defaults, derived fields, validation) and modeling_*.py (which linear
layers have a bias, which masks are made), configuration_utils.py `PreTrainedConfig`,
modeling_rope_utils.py `RotaryEmbeddingConfigMixin`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from memplan import checks
from memplan.errors import ConfigError, UnsupportedError
from memplan.models.config import ModelConfig

MAX_SIZE = 1 << 24
MAX_VOCABULARY = 1 << 31
MAX_LAYERS = 4096
MAX_POSITIONS = 1 << 40
NO_SUCH_MODEL = "no model is that large"

FULL, SLIDING = "full_attention", "sliding_attention"

SIZES = {
    "hidden_size": MAX_SIZE,
    "intermediate_size": MAX_SIZE,
    "num_hidden_layers": MAX_LAYERS,
    "num_attention_heads": MAX_SIZE,
    "num_key_value_heads": MAX_SIZE,
    "head_dim": MAX_SIZE,
    "vocab_size": MAX_VOCABULARY,
    "max_position_embeddings": MAX_POSITIONS,
    "sliding_window": MAX_POSITIONS,
    "max_window_layers": MAX_LAYERS,
}

# Class defaults of each configuration class; None: derived, or off.
COMMON: dict[str, Any] = {
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "pad_token_id": None,
    "head_dim": None,
}
WINDOWED: dict[str, Any] = {
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
QWEN: dict[str, Any] = {
    **COMMON,
    **WINDOWED,
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}


@dataclass(frozen=True, slots=True)
class Family:
    """What one model type takes, and where its layers have a bias.

    Attributes:
        defaults: Keys with the class default of each.
        qkv_bias: Fixed answer, or None: the key ``attention_bias``.
        o_bias: Fixed answer, or None: the key ``attention_bias``.
        has_qk_norm: Whether queries and keys are normalised per head.
    """

    defaults: Mapping[str, Any]
    qkv_bias: bool | None
    o_bias: bool | None
    has_qk_norm: bool = False


FAMILIES = {
    "llama": Family(
        {
            **COMMON,
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": None,
            "max_position_embeddings": 2048,
            "attention_bias": False,
            "mlp_bias": False,
        },
        qkv_bias=None,
        o_bias=None,
    ),
    "mistral": Family(
        {
            **COMMON,
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "sliding_window": 4096,
        },
        qkv_bias=False,
        o_bias=False,
    ),
    "qwen2": Family(QWEN, qkv_bias=True, o_bias=False),
    "qwen3": Family(
        {**QWEN, "head_dim": 128, "attention_bias": False},
        qkv_bias=None,
        o_bias=None,
        has_qk_norm=True,
    ),
}

# Keys that change what runs in a way that is not modelled, unless they have one of these values.
REFUSED: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None, {}),
    "per_layer_config": (None, {}),
    "output_hidden_states": (None, False),
    "output_attentions": (None, False),
    "partial_rotary_factor": (None, 1, 1.0),
    "return_dict": (None, True),
}
REFUSED_WHY = {
    "quantization_config": (
        "the checkpoint is quantised already; name the unquantised base model and the workload key "
        "quantization"
    ),
}

# Keys of real config.json files that move no memory in a training step of these families.
IGNORED = frozenset(
    (
        *("model_type", "architectures", "transformers_version", "torch_dtype", "dtype"),
        *("use_cache", "bos_token_id", "eos_token_id", "initializer_range", "rms_norm_eps"),
        *("pretraining_tp", "rope_theta", "rope_scaling", "rope_parameters"),
        *("original_max_position_embeddings", "name_or_path", "auto_map"),
        *("is_encoder_decoder", "chunk_size_feed_forward", "id2label", "label2id"),
        *("num_labels", "problem_type", "attn_implementation", "max_sequence_length"),
        *("max_length", "temperature", "top_p", "top_k", "do_sample", "repetition_penalty"),
        *("unk_token_id", "is_decoder", "add_cross_attention", "tie_encoder_decoder"),
        *("cross_attention_hidden_size", "decoder_start_token_id", "finetuning_task"),
        *("prefix", "sep_token_id", "task_specific_params", "tokenizer_class", "torchscript"),
        *("return_dict_in_generate", "output_scores", "pruned_heads", "tf_legacy_loss"),
        *("use_bfloat16", "use_mrope", "max_window_layers", "use_sliding_window"),
        *("sliding_window", "attention_bias", "mlp_bias", "layer_types", "unsloth_version"),
        *("unsloth_fixed"),
    )
)

ROPE_REQUIRED = {  # modeling_rope_utils.py, the `_validate_*_rope_parameters` functions
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
    "longrope": ("short_factor", "long_factor", "original_max_position_embeddings"),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}


def parse_config(raw: Mapping[str, Any], *, where: str, name: str) -> ModelConfig:
    """The config that these keys make.

    Args:
        raw: Keys of a ``config.json``.
        where: File or preset, for errors.
        name: What the user called it; the model type if empty.

    Raises:
        ConfigError: transformers would not build a model of it.
        UnsupportedError: It would, and memplan does not model it.
    """
    try:
        return _parse(raw, name)
    except ConfigError as error:
        raise type(error)(f"{where}: {error}" if where != "model" else f"model: {error}") from None


def _parse(raw: Mapping[str, Any], name: str) -> ModelConfig:
    model_type = _model_type(raw)
    family = FAMILIES[model_type]
    _refuse_unsupported(raw)
    ignored = _ignored(raw, family.defaults)
    values = {key: raw.get(key, default) for key, default in family.defaults.items()}
    assumed = tuple(key for key in family.defaults if key not in raw)
    sizes = _sizes(values, raw, model_type)
    window, layer_types = _windows(values, sizes["num_hidden_layers"], model_type)
    rope = _rope(raw, sizes["max_position_embeddings"])
    attention_bias = checks.flag(values.get("attention_bias", False), "attention_bias")
    return ModelConfig(
        name=name or model_type,
        model_type=model_type,
        **sizes,
        tie_word_embeddings=checks.flag(values["tie_word_embeddings"], "tie_word_embeddings"),
        qkv_bias=attention_bias if family.qkv_bias is None else family.qkv_bias,
        o_bias=attention_bias if family.o_bias is None else family.o_bias,
        mlp_bias=checks.flag(values.get("mlp_bias", False), "mlp_bias"),
        has_qk_norm=family.has_qk_norm,
        sliding_window=window,
        layer_types=layer_types,
        rope_type=rope["rope_type"],
        rope_parameters=rope,
        hidden_act=_hidden_act(values["hidden_act"]),
        attention_dropout=_attention_dropout(values["attention_dropout"]),
        pad_token_id=_pad_token_id(values["pad_token_id"], sizes["vocab_size"]),
        assumed=assumed,
        ignored=ignored,
    )


def _model_type(raw: Mapping[str, Any]) -> str:
    supported = ", ".join(FAMILIES)
    if raw.get("model_type") is None:
        raise ConfigError(f"model_type: not given; one of {supported}.")
    model_type = checks.text(raw["model_type"], "model_type")
    if model_type not in FAMILIES:
        near = get_close_matches(model_type.lower(), FAMILIES, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnsupportedError(
            f"model_type: the architecture {model_type!r} is not supported yet.{hint} "
            f"Supported: {supported}."
        )
    return model_type


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    for key, harmless in REFUSED.items():
        if key in raw and raw[key] not in harmless:
            why = REFUSED_WHY.get(key, "memplan does not model it")
            raise UnsupportedError(f"{key}: not supported: {why}.")


def _ignored(raw: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[str, ...]:
    """Given keys without effect; one that looks like a misspelt key with an effect is refused."""
    harmless = IGNORED | REFUSED.keys()
    extra = [key for key in raw if key not in known and not key.startswith("_")]
    for key in extra:
        near = get_close_matches(key.lower(), known, n=1, cutoff=0.85)
        if near and key not in harmless:
            raise ConfigError(f"{key}: unknown key; did you mean {near[0]!r}?")
    return tuple(extra)


def _sizes(values: dict[str, Any], raw: Mapping[str, Any], model_type: str) -> dict[str, int]:
    """The sizes, each checked, with those derived that were left out."""
    heads = _size(values, "num_attention_heads")
    hidden = _size(values, "hidden_size")
    if values["num_key_value_heads"] is None:
        values["num_key_value_heads"] = heads
    if values["head_dim"] is None:
        _check_divides(hidden, heads, model_type)
        values["head_dim"] = hidden // heads
    elif model_type == "llama":
        _check_divides(hidden, heads, model_type)
    keys = [key for key in SIZES if key not in ("sliding_window", "max_window_layers")]
    sizes = {key: _size(values, key) for key in keys}
    _check_heads(sizes)
    return sizes


def _size(values: Mapping[str, Any], key: str) -> int:
    return checks.integer(values[key], key, minimum=1, maximum=SIZES[key], why=NO_SUCH_MODEL)


def _check_divides(hidden: int, heads: int, model_type: str) -> None:
    """LlamaConfig refuses this; the other families floor it, which nobody wants unawares."""
    if hidden % heads:
        hint = "" if model_type == "llama" else " Give head_dim if that is meant."
        raise ConfigError(
            f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}.{hint}"
        )


def _check_heads(sizes: Mapping[str, int]) -> None:
    heads, shared, width = (
        sizes[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim")
    )
    if heads % shared:
        raise ConfigError(
            f"num_attention_heads {heads} is not a multiple of num_key_value_heads {shared}; "
            "attention cannot group them."
        )
    if width % 2:
        raise ConfigError(f"head_dim {width} is odd; rotary embeddings turn pairs.")


def _windows(
    values: Mapping[str, Any], layers: int, model_type: str
) -> tuple[int | None, tuple[str, ...]]:
    """The window, and the kind of attention of every layer."""
    if model_type == "llama":
        return None, (FULL,) * layers
    window = None if values["sliding_window"] is None else _size(values, "sliding_window")
    if model_type == "mistral":
        return window, (FULL if window is None else SLIDING,) * layers
    if not checks.flag(values["use_sliding_window"], "use_sliding_window"):
        window = None
    types = values["layer_types"]
    if types is None:
        first = checks.integer(
            values["max_window_layers"], "max_window_layers", minimum=0, maximum=MAX_POSITIONS
        )
        types = [SLIDING if window is not None and i >= first else FULL for i in range(layers)]
    return window, _layer_types(types, layers, window)


def _layer_types(types: Any, layers: int, window: int | None) -> tuple[str, ...]:
    if not isinstance(types, (list, tuple)) or not all(isinstance(t, str) for t in types):
        raise ConfigError("layer_types: expected a list of names.")
    kinds = tuple(FULL if t == "attention" else str(t) for t in types)
    if len(kinds) != layers:
        raise ConfigError(f"layer_types: {len(kinds)} entries for {layers} layers.")
    for kind in kinds:
        if kind not in (FULL, SLIDING):
            raise UnsupportedError(f"layer_types: {kind!r}; {FULL} and {SLIDING} are supported.")
    if SLIDING in kinds and window is None:
        raise ConfigError("layer_types has sliding_attention but no sliding_window is in use.")
    return kinds


def _rope(raw: Mapping[str, Any], max_position_embeddings: int) -> dict[str, Any]:
    """Standardised rope parameters: older ``rope_scaling`` and ``rope_theta`` moved in."""
    given = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise ConfigError("rope_scaling: expected a mapping.")
    rope = dict(given)
    theta = raw.get("rope_theta")
    rope.setdefault("rope_theta", 10_000.0 if theta is None else theta)
    checks.number(rope["rope_theta"], "rope_theta")
    rope["rope_type"] = checks.text(rope.get("rope_type", rope.pop("type", "default")), "rope_type")
    if rope["rope_type"] not in ROPE_REQUIRED:
        known = ", ".join(ROPE_REQUIRED)
        raise UnsupportedError(f"rope_type {rope['rope_type']!r} is not supported; known: {known}.")
    if rope["rope_type"] in ("llama3", "yarn", "longrope"):
        outside = raw.get("original_max_position_embeddings")
        if outside is not None:
            rope["original_max_position_embeddings"] = outside
        rope.setdefault("original_max_position_embeddings", max_position_embeddings)
    _check_rope(rope)
    return rope


def _check_rope(rope: Mapping[str, Any]) -> None:
    missing = [key for key in ROPE_REQUIRED[rope["rope_type"]] if rope.get(key) is None]
    if missing:
        raise ConfigError(f"rope_scaling: {rope['rope_type']} needs {', '.join(missing)}.")
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise UnsupportedError("partial_rotary_factor: only 1 is supported.")


def _hidden_act(value: Any) -> str:
    act = checks.text(value, "hidden_act")
    if act not in ("silu", "swish"):
        raise UnsupportedError(f"hidden_act {act!r} is not supported yet; silu is.")
    return "silu"


def _attention_dropout(value: Any) -> float:
    dropout = checks.number(0.0 if value is None else value, "attention_dropout", minimum=0.0)
    if dropout:
        raise UnsupportedError(
            "attention_dropout: only 0 is supported; the attention kernels differ with dropout."
        )
    return dropout


def _pad_token_id(value: Any, vocab_size: int) -> int | None:
    if value is None:
        return None
    return checks.integer(
        value, "pad_token_id", minimum=-vocab_size, maximum=vocab_size - 1, why="the vocabulary"
    )
