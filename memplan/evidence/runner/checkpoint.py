"""A checkpoint of the right shapes and dtypes, all zero, that takes neither disk nor memory.

``from_pretrained`` reads it as it reads a real one, so that loading allocates what it really does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHARD_BYTES = 8 << 30  # a file is mapped whole; hosts refuse a map that is larger than their memory
SAFETENSORS_DTYPES = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8"},
    "bool": "BOOL",
}


def tied_names(model: Any) -> set[str]:
    """Names of the tensors that are another one's, so that no checkpoint holds them."""
    if not getattr(model.config, "tie_word_embeddings", False):
        return set()
    every = getattr(model, "all_tied_weights_keys", None)
    return set(every if every is not None else model._tied_weights_keys or ())


def checkpoint_tensors(model: Any) -> dict[str, Any]:
    """Tensors that a checkpoint of this model holds, by name."""
    tied = tied_names(model)
    return {name: t for name, t in model.state_dict().items() if name not in tied}


def write_sparse_checkpoint(model: Any, folder: Path) -> None:
    """Write the checkpoint of a model on the meta device, as a folder that can be loaded.

    Args:
        model: Built on the meta device.
        folder: Where to write ``config.json`` and the files of tensors.
    """
    shards = split(checkpoint_tensors(model))
    model.config.save_pretrained(folder)
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


def split(tensors: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tensors in files of at most ``SHARD_BYTES``, in order; a larger one alone."""
    shards: list[dict[str, Any]] = [{}]
    room = SHARD_BYTES
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name] = tensor
        room -= tensor.nbytes
    return shards


def write_sparse_file(tensors: Mapping[str, Any], path: Path) -> None:
    """Write a safetensors file whose data, all zero, is a hole in the file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
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
