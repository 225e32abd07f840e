"""Keys of PEFT's configurations of the reparameterisations beside LoRA, with what is modelled.

Source: huggingface/peft v0.21.2, the
``config.py`` of each method beneath ``tuners``.
"""

from __future__ import annotations

from memplan.option_values import Number, Share, Whole

Values = dict[str, tuple[object, ...]]

COMMON: Values = {"inference_mode": (False,)}
ADALORA: Values = COMMON | {
    "init_lora_weights": (True, False),
    "fan_in_fan_out": (False,),
    "orth_reg_weight": (Number(),),
    "target_r": (Whole(0),),
    "tinit": (Whole(0),),
    "tfinal": (Whole(0),),
    "deltaT": (Whole(0),),
    "beta1": (Number(),),
    "beta2": (Number(),),
    "total_step": (Whole(0),),
    "use_rslora": (False, True),
}

LYCORIS: Values = COMMON | {
    "rank_dropout": (0,),
    "module_dropout": (0,),
    "use_effective_conv2d": (False, True),  # convolutions only
    "init_weights": (True, False),
}
LOKR: Values = LYCORIS | {
    "decompose_both": (False, True),
    "decompose_factor": (-1, Whole(1)),
    "rank_dropout_scale": (False, True),
    "init_weights": (True, False, "lycoris"),
}
VERA: Values = COMMON | {
    "projection_prng_key": (Whole(0),),
    "save_projection": (True, False),
    "vera_dropout": (Share(),),
    "d_initial": (Number(),),
    "fan_in_fan_out": (False,),
    "bias": ("none",),
    "init_weights": (True, False),
}
PVERA: Values = {k: v for k, v in VERA.items() if k != "vera_dropout"} | {
    "pvera_dropout": (Share(),),
    "sample_at_inference": (False, True),
    "generator_seed": (None,),
}
OFT: Values = COMMON | {
    "oft_block_size": (Whole(2),),
    "module_dropout": (Share(),),  # never used on linear layers
    "num_cayley_neumann_terms": (Whole(2),),
    "use_cayley_neumann": (True,),
    "block_share": (False, True),
    "coft": (False,),
    "eps": (Number(),),
    "fan_in_fan_out": (False,),
    "bias": ("none",),
    "init_weights": (True, False),
}
MISS: Values = COMMON | {
    "miss_dropout": (Share(),),
    "mini_r": (Whole(1),),
    "init_weights": (True, False, "mini", "bat"),
    "bias": ("none",),
}
HIRA: Values = COMMON | {
    "hira_dropout": (Share(),),
    "fan_in_fan_out": (False,),
    "init_weights": (True, False, "gaussian"),
}
GRALORA: Values = COMMON | {
    "gralora_k": (Whole(1),),
    "gralora_dropout": (Share(),),
    "hybrid_r": (0,),
    "fan_in_fan_out": (False,),
    "bias": ("none",),
    "init_weights": (True, False),
}
ROAD: Values = COMMON | {
    "variant": ("road_1", "road_2"),
    "group_size": (Whole(2),),
    "init_weights": (True, False),
}
DELORA: Values = COMMON | {
    "delora_lambda": (Number(),),
    "module_dropout": (Share(),),
    "bias": ("none",),
    "init_weights": (True, False),
}
GLORA: Values = COMMON | {
    "config_A_B": ("lora", "vector"),
    "config_C": ("lora", "vector", "none"),  # of layers with a bias
    "config_D_E": ("constant", "vector", "none"),  # of layers with a bias
    "bias": ("none",),
    "init_weights": (True, False),
}
PEANUT: Values = COMMON | {
    "depth": (Whole(0),),
    "act_fn": ("relu", "tanh", "silu"),
    "scaling": (Number(),),
    "init_weights": (True, False),
}
HRA: Values = COMMON | {
    "apply_GS": (False,),
    "bias": ("none",),
    "init_weights": (True, False),
}
RANDLORA: Values = COMMON | {
    "projection_prng_key": (Whole(0),),
    "save_projection": (True, False),
    "sparse": (False, True),
    "very_sparse": (False, True),
    "randlora_dropout": (Share(),),
    "randlora_alpha": (Whole(1),),
    "fan_in_fan_out": (False,),
    "bias": ("none",),
    "init_weights": (True, False),
}
LILY: Values = COMMON | {
    "stride_A": (Whole(1),),
    "num_B": (Whole(2),),
    "scaling": (Number(),),
    "init_weights": (True, False),
}
TINYLORA: Values = COMMON | {
    "u": (Whole(1),),
    "weight_tying": (Number(),),
    "projection_seed": (Whole(0),),
    "save_projection": (True, False),
    "init_v_bound": (Number(),),
    "tinylora_dropout": (Share(),),
    "fan_in_fan_out": (False,),
    "bias": ("none",),
    "init_weights": (True, False, "uniform"),
}
DEFT: Values = COMMON | {
    "decomposition_method": ("relu", "qr"),
    "init_scale": (Number(),),
    "para": (False, True),
    "deft_dropout": (Share(),),
    "fan_in_fan_out": (False,),
    "bias": ("none",),
    "init_weights": (True, False),
}
PSOFT: Values = COMMON | {
    "psoft_alpha": (Whole(1),),
    "psoft_dropout": (Share(),),
    "fan_in_fan_out": (False,),
    "ab_svd_init": ("psoft_init", "pissa_init"),
    "psoft_svd": ("full", "lowrank"),
    "psoft_svd_lowrank_niter": (Whole(0),),
    "random_seed": (Whole(0),),
    "psoft_orth": (True, False),
    "psoft_mag_b": (True, False),
    "psoft_mag_a": (True, False),
    "use_cayley_neumann": (True, False),
    "num_cayley_neumann_terms": (Whole(2),),
    "cayley_neumann_eps": (None,),
    "init_weights": (True, False),
}
VBLORA: Values = COMMON | {
    "num_vectors": (Whole(1),),
    "vector_length": (Whole(1),),
    "topk": (Whole(1),),
    "save_only_topk_weights": (False,),
    "vblora_dropout": (Share(),),
    "init_vector_bank_bound": (Number(),),
    "init_logits_std": (Number(),),
    "fan_in_fan_out": (False,),
    "bias": ("none",),
}

TUNER_OPTIONS: dict[str, Values] = {
    "adalora": ADALORA,
    "loha": LYCORIS,
    "lokr": LOKR,
    "vera": VERA,
    "pvera": PVERA,
    "oft": OFT,
    "miss": MISS,
    "hira": HIRA,
    "glora": GLORA,
    "delora": DELORA,
    "road": ROAD,
    "gralora": GRALORA,
    "peanut": PEANUT,
    "hra": HRA,
    "randlora": RANDLORA,
    "lily": LILY,
    "tinylora": TINYLORA,
    "deft": DEFT,
    "psoft": PSOFT,
    "vblora": VBLORA,
}

# Which of PEFT's keys that pick modules each of them takes.
LAYERS = ("layers_to_transform", "layers_pattern")
PLACES = (*LAYERS, "exclude_modules")
PATTERNS = ("rank_pattern", "alpha_pattern")
TUNER_SELECTORS: dict[str, tuple[str, ...]] = {
    "adalora": PLACES,
    "loha": (*PLACES, *PATTERNS),
    "lokr": (*PLACES, *PATTERNS),
    "vera": LAYERS,
    "pvera": LAYERS,
    "oft": PLACES,
    "miss": PLACES,
    "hira": (*PLACES, "rank_pattern"),
    "gralora": LAYERS,
    "delora": (*PLACES, "rank_pattern"),
    "peanut": PLACES,
    "hra": PLACES,
    "randlora": LAYERS,
    "lily": LAYERS,
    "tinylora": LAYERS,
    "deft": PLACES,
    "psoft": PLACES,
    "vblora": PLACES,
}
