"""A Hugging Face ``config.json`` as the forward needs it: every field resolved and checked.

What transformers 5.18 does with a config (class defaults, derived sizes, which projections have a
bias, which layers slide) happens here, once; the model files read attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from memplan.errors import ConfigError, unknown_name
from memplan.files import checked_mapping, read_json_mapping
from memplan.models.presets import load_preset, preset_aliases, preset_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes and switches of one decoder-only model.

    Attributes:
        name: Preset, path or model type that it came from.
        model_type: ``llama``, ``mistral``, ``qwen2`` or ``qwen3``.
        hidden_size: Width of the residual stream. [elements]
        intermediate_size: Width of the gated MLP. [elements]
        num_hidden_layers: Decoder layers.
        num_attention_heads: Query heads.
        num_key_value_heads: Key and value heads.
        head_dim: Width of one head. [elements]
        vocab_size: Rows of the embedding.
        max_position_embeddings: Longest sequence the positions were made for. [tokens]
        tie_word_embeddings: Whether the head shares the embedding's weight.
        qkv_bias: Whether q_proj, k_proj and v_proj have a bias.
        o_bias: Whether o_proj has a bias.
        mlp_bias: Whether gate_proj, up_proj and down_proj have a bias.
        has_qk_norm: Whether queries and keys are normalised per head.
        sliding_window: Window of the sliding layers. [tokens]
        layer_types: ``full_attention`` or ``sliding_attention``, one a layer.
        rope_type: How rotary frequencies are made.
        rope_parameters: Everything else that the rotary embedding reads.
        hidden_act: Activation of the MLP.
        attention_dropout: Dropout on attention weights in training.
        pad_token_id: ``padding_idx`` of the embedding.
        assumed: Keys that were not given and took transformers' class default.
        ignored: Keys that were given and have no effect on memory.
    """

    name: str
    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    has_qk_norm: bool
    sliding_window: int | None
    layer_types: tuple[str, ...]
    rope_type: str
    rope_parameters: Mapping[str, Any]
    hidden_act: str
    attention_dropout: float
    pad_token_id: int | None
    assumed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def num_key_value_groups(self) -> int:
        """Query heads that share one key and value head."""
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def has_sliding_layers(self) -> bool:
        """Whether any layer attends within a window."""
        return "sliding_attention" in self.layer_types

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(out_features, in_features) of each kind of linear layer, by the end of its name."""
        query = self.num_attention_heads * self.head_dim
        key = self.num_key_value_heads * self.head_dim
        return {
            "q_proj": (query, self.hidden_size),
            "k_proj": (key, self.hidden_size),
            "v_proj": (key, self.hidden_size),
            "o_proj": (self.hidden_size, query),
            "gate_proj": (self.intermediate_size, self.hidden_size),
            "up_proj": (self.intermediate_size, self.hidden_size),
            "down_proj": (self.hidden_size, self.intermediate_size),
            "lm_head": (self.vocab_size, self.hidden_size),
        }

    @property
    def num_parameters(self) -> int:
        """Parameters of the whole model. [elements]"""
        shapes = self.linear_shapes()
        attention = [shapes[n] for n in ("q_proj", "k_proj", "v_proj", "o_proj")]
        mlp = [shapes[n] for n in ("gate_proj", "up_proj", "down_proj")]
        layer = sum(rows * columns for rows, columns in attention + mlp)
        layer += self.qkv_bias * sum(rows for rows, _ in attention[:3])
        layer += self.o_bias * attention[3][0] + self.mlp_bias * sum(rows for rows, _ in mlp)
        layer += 2 * self.hidden_size + self.has_qk_norm * 2 * self.head_dim
        embeddings = self.vocab_size * self.hidden_size * (2 - self.tie_word_embeddings)
        return self.num_hidden_layers * layer + self.hidden_size + embeddings


def load_model_config(spec: str | PathLike[str] | Mapping[str, Any]) -> ModelConfig:
    """The model config that a preset, alias, path or mapping means.

    Raises:
        ConfigError: It cannot be found, read or used.

    Example:
        >>> config = load_model_config("7b")
        >>> config.name, config.hidden_size, config.head_dim
        ('llama-2-7b', 4096, 128)
    """
    from memplan.models.parse import parse_config

    raw = load_raw_config(spec)
    config = parse_config(raw.keys, where=raw.where, name=raw.name)
    return replace(config, assumed=()) if raw.is_preset else config


@dataclass(frozen=True, slots=True)
class RawConfig:
    """A model's configuration as it was given, of any architecture.

    Attributes:
        keys: Those of its ``config.json``.
        name: What the user called it; the preset's own name; empty for a mapping.
        where: File or preset, for errors.
        is_preset: Whether it is one of memplan's.
    """

    keys: Mapping[str, Any]
    name: str
    where: str
    is_preset: bool = False


def load_raw_config(spec: str | PathLike[str] | Mapping[str, Any]) -> RawConfig:
    """The keys that a preset, alias, path or mapping means, not looked into.

    Raises:
        ConfigError: It cannot be found or read.
    """
    if isinstance(spec, Mapping):
        return RawConfig(checked_mapping(spec, "model"), "", "model")
    text = fspath(spec)
    name = preset_name(text)
    if name is not None and not (_is_pathlike(text) and _exists(text)):
        return RawConfig(load_preset(name), name, name, is_preset=True)
    path = config_path(text)
    return RawConfig(read_json_mapping(path), text, str(path))


def config_path(spec: str) -> Path:
    """The ``config.json`` that a path to it or to its folder means."""
    path = Path(spec).expanduser()
    if not _exists(spec):
        raise _not_found(spec)
    if not path.is_dir():
        return path
    if _exists(str(path / "config.json")):
        return path / "config.json"
    hint = ""
    if _exists(str(path / "adapter_config.json")):
        hint = " It holds an adapter_config.json: name the base model it was made for."
    raise ConfigError(f"{path}: the folder has no config.json.{hint}")


def _is_pathlike(spec: str) -> bool:
    return "/" in spec or "\\" in spec or spec.startswith((".", "~")) or spec.endswith(".json")


def _exists(spec: str) -> bool:
    try:
        return Path(spec).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _not_found(spec: str) -> ConfigError:
    if _is_pathlike(spec):
        shown = spec if len(spec) <= 200 else spec[:197] + "..."
        return ConfigError(
            f"model: no file or folder {shown!r}, and no preset of that name; `memplan models` "
            "lists the presets."
        )
    return unknown_name("model", spec if len(spec) <= 200 else spec[:197] + "...", preset_aliases())
