"""DDP or FSDP2 on a small Llama, as people write it: an ordinary script for ``torchrun``.

torchrun --nproc-per-node 2 train_parallel.py ddp
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "vocab_size": 8000}


def main(kind: str) -> None:
    """Train three steps."""
    rank = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl")
    config = LlamaConfig(num_attention_heads=8, num_key_value_heads=4, **SIZES)
    with torch.device("meta" if kind == "fsdp2" else "cuda"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.float32)
    if kind == "ddp":
        run = torch.nn.parallel.DistributedDataParallel(model, device_ids=[rank])
    else:
        mesh = init_device_mesh("cuda", (dist.get_world_size(),))
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        run = fully_shard(model, mesh=mesh, mp_policy=policy)
        model.to_empty(device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(3):
        ids = torch.randint(0, config.vocab_size, (2, 256), device="cuda")
        with torch.autocast("cuda", torch.bfloat16, enabled=kind == "ddp"):
            loss = run(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print("peak", torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
