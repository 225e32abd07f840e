"""What the configuration class of each model type takes: keys, defaults, bounds.

Source: huggingface/transformers v5.18.0 src/transformers/models/{llama,mistral,qwen2,qwen3}/
configuration_*.py (class defaults, what may be null) and modeling_*.py (which linear layers have
a bias), modeling_rope_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_SIZE = 1 << 24
MAX_VOCABULARY = 1 << 31
MAX_LAYERS = 1024
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

QWEN_NULLABLE = ("num_key_value_heads", "sliding_window", "layer_types")


@dataclass(frozen=True, slots=True)
class Family:
    """What one model type takes, and where its layers have a bias.

    Attributes:
        defaults: Keys with the class default of each.
        nullable: Keys that may be null; head_dim and num_key_value_heads are then derived.
        qkv_bias: Fixed answer, or None: the key ``attention_bias``.
        o_bias: Fixed answer, or None: the key ``attention_bias``.
        has_qk_norm: Whether queries and keys are normalised per head.
    """

    defaults: Mapping[str, Any]
    nullable: tuple[str, ...]
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
        nullable=("head_dim", "num_key_value_heads", "attention_dropout"),
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
        nullable=("head_dim", "sliding_window"),
        qkv_bias=False,
        o_bias=False,
    ),
    "qwen2": Family(QWEN, QWEN_NULLABLE, qkv_bias=True, o_bias=False),
    "qwen3": Family(
        {**QWEN, "head_dim": 128, "attention_bias": False},
        QWEN_NULLABLE,
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

# Keys that are read and are no field of their own.
READ = frozenset(
    (
        *("model_type", "rope_theta", "rope_scaling", "rope_parameters"),
        "original_max_position_embeddings",
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
