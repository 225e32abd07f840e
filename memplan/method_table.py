"""Every method of fine-tuning that memplan knows, one row each: the one place that lists them.

What a method does to a model is in ``memplan/methods``; which further keys of PEFT's configuration
are modelled is in ``memplan/peft_options.py``.

Source: huggingface/peft v0.21.2 utils/peft_types.py ``PeftType``, the config class of each for its
keys and its default rank.
"""

from __future__ import annotations

from dataclasses import dataclass

FULL, SELECTIVE, ADDITIVE = "full", "selective", "additive"
REPARAMETERISATION = "reparameterisation"
FAMILIES = (FULL, SELECTIVE, REPARAMETERISATION, ADDITIVE)
LORA = (
    *("rank", "alpha", "dropout", "target_modules", "bias", "adapter_dtype", "modules_to_save"),
    *("adapters", "peft_config"),
)
RANKED = ("rank", "target_modules", "adapter_dtype", "modules_to_save", "peft_config")
SCALED = ("rank", "alpha", *RANKED[1:])
UNRANKED = RANKED[1:]
NOTHING_SAVED = ("target_modules", "adapter_dtype", "peft_config")
CHOSEN = ("num_trainable_layers", "trainable")
PROMPT = ("num_virtual_tokens", "adapter_dtype", "peft_config")


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        name: The workload's word.
        family: ``full``, ``selective``, ``reparameterisation`` or ``additive``.
        about: What trains, in a few words.
        keys: Workload keys that only some methods take, and this one does.
        rank: PEFT's default rank, 0 where it has none.
        paper: Its number on arXiv, or empty.
        merges: Whether what was trained can be merged into the base's weights.
        modelled: Whether the byte engine runs it.
        of_peft: Whether PEFT registers it, or makes it of one that it registers.
    """

    name: str
    family: str
    about: str
    keys: tuple[str, ...] = ()
    rank: int = 0
    paper: str = ""
    merges: bool = False
    modelled: bool = False
    of_peft: bool = True


def _own(name: str, family: str, about: str, paper: str = "", *, modelled: bool = False) -> Method:
    """A method that is no part of PEFT and needs no merging: the model keeps its shape."""
    return Method(name, family, about, (), 0, paper, True, modelled, False)


def _added(name: str, about: str, paper: str = "", *, modelled: bool = False) -> Method:
    """New modules of another library than PEFT."""
    return Method(name, ADDITIVE, about, (), 0, paper, False, modelled, False)


def _ranked(name: str, rank: int, about: str, paper: str = "", *, modelled: bool = False) -> Method:
    """A reparameterisation with a rank, which merges."""
    return Method(name, REPARAMETERISATION, about, RANKED, rank, paper, True, modelled)


def _unmerged(name: str, rank: int, about: str, *, modelled: bool = False) -> Method:
    """One with a rank whose update depends on its input: PEFT refuses to merge it."""
    return Method(name, REPARAMETERISATION, about, RANKED, rank, "", False, modelled)


def _scaled(name: str, rank: int, about: str, paper: str = "", *, modelled: bool = False) -> Method:
    """One that has LoRA's ``alpha``, too."""
    return Method(name, REPARAMETERISATION, about, SCALED, rank, paper, True, modelled)


def _lora(name: str, about: str, paper: str, *, rank: int = 8, modelled: bool = False) -> Method:
    """One that takes all of LoRA's keys."""
    return Method(name, REPARAMETERISATION, about, LORA, rank, paper, True, modelled)


def _plain(name: str, about: str, paper: str = "", *, modelled: bool = False) -> Method:
    """A reparameterisation without a rank."""
    return Method(name, REPARAMETERISATION, about, UNRANKED, 0, paper, True, modelled)


def _prompt(name: str, about: str, paper: str = "", *, modelled: bool = False) -> Method:
    """Virtual tokens."""
    return Method(name, ADDITIVE, about, PROMPT, 0, paper, False, modelled)


ROWS = (
    Method(
        *("full", FULL, "every parameter trains", ("trainable",)),
        merges=True,
        modelled=True,
        of_peft=False,
    ),
    _own("frozen", FULL, "nothing: a forward alone", modelled=True),
    # Selective: some of the model's own parameters train.
    _own("bitfit", SELECTIVE, "the biases", "2106.10199", modelled=True),
    Method(
        *("ln_tuning", SELECTIVE, "the norms", UNRANKED, 0, "2312.11420"),
        merges=True,
        modelled=True,
    ),
    Method(
        *("last_layers", SELECTIVE, "last layers, final norm, head"),
        *(("num_trainable_layers",), 0, "1911.03090"),
        merges=True,
        modelled=True,
        of_peft=False,
    ),
    _own("embeddings_only", SELECTIVE, "the token embeddings", modelled=True),
    Method(
        "trainable_tokens",
        SELECTIVE,
        "the embeddings of some tokens",
        NOTHING_SAVED,
        merges=True,
        modelled=True,
    ),
    Method("osf", SELECTIVE, "the small singular directions", NOTHING_SAVED, 0, "2504.07097", True),
    Method("shira", SELECTIVE, "a sparse set of the weights", RANKED, 32, "2406.13175", True),
    # Reparameterisation: a small update of the weights.
    _lora("lora", "low-rank matrices beside layers", "2106.09685", modelled=True),
    _lora("rslora", "LoRA scaled by its rank's root", "2312.03732", modelled=True),
    _lora("dora", "LoRA and the outputs' magnitudes", "2402.09353", modelled=True),
    _lora("lora_fa", "LoRA with A frozen", "2308.03303", modelled=True),
    _lora("adalora", "LoRA as an SVD that is pruned", "2303.10512", rank=12, modelled=True),
    _scaled("loha", 8, "products of low-rank matrices", "2108.06098", modelled=True),
    _scaled("lokr", 8, "Kronecker products", "2309.14859", modelled=True),
    _ranked("vera", 256, "vectors between random matrices", "2310.11454", modelled=True),
    _ranked("pvera", 256, "VeRA, drawn from a distribution", modelled=True),
    _plain("oft", "a rotation of the inputs", "2306.07280", modelled=True),
    _plain("boft", "a butterfly of rotations", "2311.06243"),
    _ranked("hra", 8, "Householder reflections", "2405.17484", modelled=True),
    _ranked("miss", 64, "one matrix added to shards", "2409.15371", modelled=True),
    _ranked("randlora", 32, "scaled sums of random matrices", "2502.00987", modelled=True),
    _ranked("vblora", 4, "LoRA from a bank of vectors", "2405.15179", modelled=True),
    _ranked("delora", 8, "LoRA of a bounded norm", "2503.18225", modelled=True),
    _scaled("gralora", 32, "LoRA on blocks of the weight", "2505.20355", modelled=True),
    _scaled("deft", 8, "a projection and an update", modelled=True),
    _ranked("hira", 32, "a factor times the weight", modelled=True),
    _unmerged("lily", 32, "LoRA that layers share", modelled=True),
    _ranked("glora", 8, "LoRA of weights and biases", "2306.07967", modelled=True),
    _ranked("adamss", 100, "subspaces of the weight's SVD"),
    _ranked("peanut", 32, "a network that makes the update", modelled=True),
    _ranked("psoft", 32, "a rotation in a subspace", modelled=True),
    _unmerged("shadow", 8, "a small model beside the layers"),
    _ranked("tinylora", 2, "a few numbers on an SVD", modelled=True),
    _ranked("unilora", 4, "LoRA from one shared vector"),
    Method("poly", REPARAMETERISATION, "a mixture of LoRAs", RANKED, 8, "2202.13914"),
    _plain("c3a", "circular convolutions", "2407.19342"),
    _plain("fourierft", "Fourier coefficients", "2405.03003"),
    _plain("waveft", "wavelet coefficients", "2505.12532"),
    _plain("frod", "a sparse update in one basis"),
    _plain("road", "rotations of pairs of outputs", "2409.00119", modelled=True),
    _plain("supertuning", "some of the weights, chosen"),
    # Additive: new modules or new tokens.
    Method(  # PEFT merges it only into layers that have a bias
        "beft",
        ADDITIVE,
        "biases of value projections",
        UNRANKED,
        0,
        "2509.15974",
        modelled=True,
    ),
    Method(
        "ia3", ADDITIVE, "vectors that scale activations", UNRANKED, 0, "2205.05638", True, True
    ),
    Method(
        *("bottleneck_adapter", ADDITIVE, "small networks in each layer"),
        *(("adapter_dtype", "peft_config"), 0, "1902.00751"),
        modelled=True,
        of_peft=False,
    ),
    Method(
        *("llama_adapter", ADDITIVE, "gated prompts", NOTHING_SAVED, 0, "2303.16199"),
        modelled=True,
    ),
    Method(
        *("adaption_prompt", ADDITIVE, "PEFT's name for it", NOTHING_SAVED, 0, "2303.16199"),
        modelled=True,
    ),
    _added("llama_adapter_v2", "norms, biases, early prompts", "2304.15010"),
    Method(
        *("prompt_tuning", ADDITIVE, "virtual tokens before the input"),
        *(("num_virtual_tokens", "peft_config"), 0, "2104.08691"),
        modelled=True,
    ),
    _prompt("prefix_tuning", "keys and values in each layer", "2101.00190", modelled=True),
    _prompt("p_tuning", "virtual tokens from an encoder", "2103.10385", modelled=True),
    _prompt("multitask_prompt_tuning", "virtual tokens of several tasks", "2303.02861"),
    _prompt("cpt", "the tokens of examples", "2410.17222"),
    _prompt("cartridge", "a cache of keys and values", modelled=True),
    Method(
        "xlora",
        ADDITIVE,
        "a mixture of trained LoRAs",
        ("adapter_dtype", "peft_config"),
        0,
        "2402.07148",
    ),
)
BY_NAME = {row.name: row for row in ROWS}


def takers(key: str) -> tuple[str, ...]:
    """The methods that take a key of the workload, those that are modelled first."""
    rows = [row for row in ROWS if key in row.keys]
    return tuple(row.name for row in sorted(rows, key=lambda row: not row.modelled))
