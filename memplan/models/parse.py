"""From the keys of a ``config.json`` to a `ModelConfig`, as transformers 5.18 resolves them.

Source: huggingface/transformers v5.18.0 src/transformers/models/{llama,mistral,qwen2,qwen3}/
configuration_*.py (derived fields, validation) and modeling_*.py (which masks are made),
configuration_utils.py `PreTrainedConfig`, modeling_rope_utils.py `RotaryEmbeddingConfigMixin`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from difflib import get_close_matches
from typing import Any

from memplan import checks
from memplan.errors import ConfigError, UnsupportedError
from memplan.models.config import ModelConfig
from memplan.models.keys import (
    FAMILIES,
    FULL,
    IGNORED,
    MAX_POSITIONS,
    NO_SUCH_MODEL,
    READ,
    REFUSED,
    REFUSED_WHY,
    ROPE_REQUIRED,
    SIZES,
    SLIDING,
    Family,
)


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
    ignored = _ignored(raw, family.defaults.keys())
    _refuse_null(raw, family)
    values = {key: raw.get(key, default) for key, default in family.defaults.items()}
    assumed = tuple(key for key in family.defaults if key not in raw)
    sizes = _sizes(values, model_type)
    values.setdefault("layer_types", raw.get("layer_types"))
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


def _ignored(raw: Mapping[str, Any], known: Set[str]) -> tuple[str, ...]:
    """Given keys without effect; one that looks like a misspelt key with an effect is refused."""
    harmless = IGNORED | REFUSED.keys()
    extra = [key for key in raw if key not in known | READ and not key.startswith("_")]
    for key in extra:
        near = get_close_matches(key.lower(), known, n=1, cutoff=0.85)
        if near and key not in harmless:
            raise ConfigError(f"{key}: unknown key; did you mean {near[0]!r}?")
    return tuple(extra)


def _refuse_null(raw: Mapping[str, Any], family: Family) -> None:
    """The config classes are strict: null goes only where the annotation has None."""
    for key in family.defaults:
        if key in raw and raw[key] is None and key not in (*family.nullable, "pad_token_id"):
            raise ConfigError(f"{key}: is null; leave the key out for the default.")


def _sizes(values: dict[str, Any], model_type: str) -> dict[str, int]:
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
    types = values["layer_types"]
    if model_type == "llama":
        return None, _layer_types([FULL] * layers if types is None else types, layers, None)
    window = None if values["sliding_window"] is None else _size(values, "sliding_window")
    if model_type == "mistral":
        _layer_types([FULL] * layers if types is None else types, layers, window or 1)
        return window, (FULL if window is None else SLIDING,) * layers
    if not checks.flag(values["use_sliding_window"], "use_sliding_window"):
        window = None
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
    if dropout >= 1:
        raise ConfigError(f"attention_dropout: expected a number below 1, got {dropout:g}.")
    return dropout


def _pad_token_id(value: Any, vocab_size: int) -> int | None:
    if value is None:
        return None
    return checks.integer(
        value, "pad_token_id", minimum=-vocab_size, maximum=vocab_size - 1, why="the vocabulary"
    )
