"""Measure workloads with the real libraries on the CUDA device that torch has.

    PYTHON tests/evidence/measure.py < workloads.jsonl

Reads one workload a line (the keys of ``memplan.Workload``, the model a mapping of Hugging Face
config keys) and writes one JSON line for each, measured in a process of its own. A phase is a list
of byte counts in the order of ``COLUMNS``. With ``--events DIR`` every event of the allocator is
also written there, as a pickle.

The loop is ``loop: plain``: its statements, their order and their locals decide which tensor is
alive when, so they are part of the evidence. Peaks are over the training steps; ``load`` has its
own. A forced attention kernel is forced for the whole loop: non-reentrant checkpointing runs the
forward again inside the backward, outside any context that stands around the forward alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.evidence.history import start_history, write_history

Json = dict[str, Any]

COLUMNS = (
    "peak_requested", "peak_allocated", "peak_reserved", "requested", "allocated", "reserved",
)  # fmt: skip
DEFAULTS: Json = {
    "dtype": "bfloat16",
    "autocast": "none",
    "method": "full",
    "rank": 8,
    "alpha": 8,
    "dropout": 0.0,
    "target_modules": None,
    "modules_to_save": None,
    "bias": "none",
    "num_virtual_tokens": 20,
    "adapter_dtype": "float32",
    "peft_config": {},
    "quantization": "none",
    "prepare_kbit": True,
    "optimizer": "adamw_fused",
    "micro_batch_size": 1,
    "seq_len": 2048,
    "gradient_accumulation_steps": 1,
    "activation_checkpointing": False,
    "attention": "sdpa",
    "attention_mask": "none",
    "max_grad_norm": 1.0,
    "keep_outputs": False,
    "use_cache": False,
    "steps": 3,
    "loop": "plain",
    "gpu": None,
}
KERNELS = {
    "sdpa-math": "MATH",
    "sdpa-efficient": "EFFICIENT_ATTENTION",
    "sdpa-flash": "FLASH_ATTENTION",
}
SHARD_BYTES = 8 << 30  # a file is mapped whole; hosts refuse a map that is larger than their memory
SAFETENSORS_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def checkpoint_tensors(config: Any, dtype: Any) -> dict[str, Any]:
    """Tensors on the meta device that a checkpoint of this model holds, by name."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    tied = tied if config.tie_word_embeddings else set()
    return {name: t for name, t in model.state_dict().items() if name not in tied}


def write_sparse_file(tensors: dict[str, Any], path: Path) -> None:
    """Write a safetensors file whose data, all zero, is a hole in the file."""
    header: Json = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        kind = SAFETENSORS_DTYPES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


def write_sparse_checkpoint(config: Any, dtype: Any, folder: Path) -> None:
    """Write a checkpoint that loads as a real one does, without the disk or the memory."""
    shards: list[dict[str, Any]] = [{}]
    room = SHARD_BYTES
    for name, tensor in checkpoint_tensors(config, dtype).items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name] = tensor
        room -= tensor.nbytes
    config.save_pretrained(folder)
    if len(shards) == 1:
        write_sparse_file(shards[0], folder / "model.safetensors")
        return
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_sparse_file(shard, folder / file)
        where |= dict.fromkeys(shard, file)
    index = json.dumps({"metadata": {}, "weight_map": where})
    (folder / "model.safetensors.index.json").write_text(index)


def quantization_config(w: Json, dtype: Any) -> Json:
    """Keyword arguments of ``from_pretrained`` for bitsandbytes, or none."""
    from transformers import BitsAndBytesConfig

    scheme: str = w["quantization"]
    if scheme == "none":
        return {}
    if scheme == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=scheme[:3],
            bnb_4bit_use_double_quant=scheme.endswith("dq"),
            bnb_4bit_compute_dtype=dtype,
        )
    }


def load_model(w: Json) -> Any:
    """The model as ``from_pretrained`` leaves it on the device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    keys = dict(w["model"])
    config = AutoConfig.for_model(keys.pop("model_type"), **keys)
    dtype = getattr(torch, w["dtype"])
    config.dtype = dtype
    attention = "eager" if w["attention"] == "eager" else "sdpa"
    extra = quantization_config(w, dtype)
    with tempfile.TemporaryDirectory() as folder:
        write_sparse_checkpoint(config, dtype, Path(folder))
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, device_map={"": 0}, attn_implementation=attention, **extra
        )
    model.config.use_cache = w["use_cache"]
    return model


def peft_config(w: Json) -> Any:
    """PEFT's own configuration of the method."""
    import peft

    common = {"task_type": peft.TaskType.CAUSAL_LM, **w["peft_config"]}
    if w["method"] == "prompt_tuning":
        return peft.PromptTuningConfig(num_virtual_tokens=w["num_virtual_tokens"], **common)
    for key in ("target_modules", "modules_to_save", "bias"):
        if w[key] is not None:
            common.setdefault(key, w[key])
    return peft.LoraConfig(r=w["rank"], lora_alpha=w["alpha"], lora_dropout=w["dropout"], **common)


def enable_checkpointing(w: Json, model: Any) -> Any:
    """Prepare a quantised model, or switch checkpointing on."""
    checkpointing = bool(w["activation_checkpointing"])
    keywords = {"use_reentrant": w["activation_checkpointing"] == "reentrant"}
    if w["quantization"] != "none" and w["prepare_kbit"] and w["method"] != "frozen":
        from peft import prepare_model_for_kbit_training

        return prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=checkpointing,
            gradient_checkpointing_kwargs=keywords,
        )
    if checkpointing:
        if w["method"] != "full":
            model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=keywords)
    return model


def apply_method(w: Json, model: Any) -> Any:
    """The model with the method's parameters in place."""
    model = enable_checkpointing(w, model)
    if w["method"] == "full":
        return model
    if w["method"] == "frozen":
        model.requires_grad_(False)
        return model
    import peft

    upcast = w["adapter_dtype"] == "float32"
    return peft.get_peft_model(model, peft_config(w), autocast_adapter_dtype=upcast)


def build_optimizer(w: Json, params: list[Any]) -> Any:
    """The optimizer of that name, or none."""
    import torch

    name, lr = w["optimizer"], 1e-4
    if name == "none":
        return None
    if name.endswith("8bit"):
        import bitsandbytes

        names = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}
        return getattr(bitsandbytes.optim, names[name])(params, lr=lr)
    if name.startswith("sgd"):
        return torch.optim.SGD(params, lr=lr, momentum=0.9 if name == "sgd_momentum" else 0.0)
    keywords = {
        "adamw_foreach": {"foreach": True},
        "adamw_fused": {"fused": True},
        "adamw_loop": {"foreach": False},
    }
    return torch.optim.AdamW(params, lr=lr, **keywords[name])


class Phases:
    """Statistics of the allocator at the end of each phase, and their maximum since ``restart``."""

    def __init__(self) -> None:
        self.top = [0, 0, 0]
        self.ends: list[tuple[str, int]] = []

    def restart(self) -> None:
        """Forget the peaks so far."""
        self.top = [0, 0, 0]

    def end(self, name: str, into: Json) -> None:
        """Write this phase's ``COLUMNS`` and start the next one."""
        import torch.cuda as device

        device.synchronize()
        stats = device.memory_stats()
        kinds = ("requested_bytes", "allocated_bytes", "reserved_bytes")
        peaks = [stats[f"{kind}.all.peak"] for kind in kinds]
        into[name] = peaks + [stats[f"{kind}.all.current"] for kind in kinds]
        self.top = [max(pair) for pair in zip(self.top, peaks, strict=True)]
        self.ends.append((name, stats["allocation.all.allocated"]))
        device.reset_peak_memory_stats()


def train(w: Json, out: Json, phases: Phases) -> None:  # noqa: C901
    """Load, then run the plain loop. Its locals live as long as a user's would."""
    import torch

    model = load_model(w)
    phases.end("load", out["phases"])
    model = apply_method(w, model)
    model.train()
    phases.end("adapter", out["phases"])
    params = [p for p in model.parameters() if p.requires_grad]
    opt = build_optimizer(w, params)
    phases.end("optimizer_init", out["phases"])
    out["num_trainable_parameters"] = sum(p.numel() for p in params)
    out["num_parameters"] = sum(p.numel() for p in model.parameters())
    phases.restart()
    vocab = model.config.get_text_config().vocab_size
    amp = None if w["autocast"] == "none" else getattr(torch, w["autocast"])
    scaler = torch.amp.GradScaler("cuda") if amp is torch.float16 else None
    b, n, accumulation = w["micro_batch_size"], w["seq_len"], w["gradient_accumulation_steps"]
    outputs = None
    for _step in range(w["steps"]):
        record: Json = {}
        for _ in range(accumulation):
            ids = torch.randint(0, vocab, (b, n)).to("cuda")
            kw = {"input_ids": ids}
            kw["labels"] = ids.clone()
            if w["attention_mask"] != "none":
                kw["attention_mask"] = torch.ones(b, n, dtype=torch.long).to("cuda")
            with torch.autocast("cuda", amp) if amp else contextlib.nullcontext():
                outputs = model(**kw)
                loss = outputs.loss
            if not w["keep_outputs"]:
                outputs = None
            loss = loss / accumulation
            phases.end("forward", record)
            if loss.requires_grad:
                (scaler.scale(loss) if scaler else loss).backward()
            phases.end("backward", record)
        if w["max_grad_norm"]:
            if scaler:
                scaler.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(params, w["max_grad_norm"])
        if opt is not None:
            if scaler:
                scaler.step(opt)
                scaler.update()
            else:
                opt.step()
        loss.detach().item()
        phases.end("optimizer_step", record)
        if opt is not None:
            opt.zero_grad(set_to_none=True)
        phases.end("zero_grad", record)
        out["steps"].append(list(record.values()))


def attention_kernel(w: Json) -> Any:
    """The context that forces the workload's attention kernel."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if w["attention"] not in KERNELS:
        return contextlib.nullcontext()
    return sdpa_kernel(getattr(SDPBackend, KERNELS[w["attention"]]))


def device_facts() -> Json:
    """The device, as torch sees it."""
    import torch

    p = torch.cuda.get_device_properties(0)
    facts = {"name": p.name, "capability": f"{p.major}.{p.minor}", "total_bytes": p.total_memory}
    return facts | {"free_bytes": torch.cuda.mem_get_info(0)[0]}


def versions() -> Json:
    """The libraries that decide the numbers."""
    from importlib.metadata import version

    return {p: version(p) for p in ("torch", "transformers", "peft", "bitsandbytes")}


def measure(workload: Json, events: Path | None = None) -> Json:
    """What the allocator saw of one workload; ``error`` says why a run stopped."""
    unknown = set(workload) - {*DEFAULTS, "model"}
    if unknown:
        raise SystemExit(f"keys that this loop does not know: {sorted(unknown)}")
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.cuda.init()
    out: Json = {"error": None, "phases": {}, "steps": [], "device": device_facts()}
    out["versions"] = versions()
    if events:
        start_history()
    phases = Phases()
    w = DEFAULTS | workload
    try:
        with attention_kernel(w):
            train(w, out, phases)
    except torch.OutOfMemoryError as e:
        out["error"] = "out of memory"
        e.__traceback__ = None
        phases.end("out_of_memory", {})
    except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as e:
        out["error"] = f"refused: {type(e).__name__}: {e}"[:300]
    out["peak"] = phases.top
    if events:
        write_history(events, phases.ends)
    return out


def measure_in_child(line: str, events: Path | None) -> None:
    """Fork, measure, print. The parent has the libraries loaded and no device open."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sys.stdout.write(json.dumps(measure(json.loads(line), events)) + "\n")
            sys.stdout.flush()
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status:
        sys.stdout.write(json.dumps({"error": f"crashed: status {status}"}) + "\n")


def main() -> None:
    """Measure each line of the input."""
    import transformers.models.llama.modeling_llama
    import transformers.models.mistral.modeling_mistral
    import transformers.models.qwen2.modeling_qwen2
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401

    folder = Path(sys.argv[2]) if sys.argv[1:2] == ["--events"] else None
    for number, line in enumerate(sys.stdin):
        measure_in_child(line, folder / f"{number}.pkl" if folder else None)


if __name__ == "__main__":
    main()
