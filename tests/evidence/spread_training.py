"""DDP or FSDP2 over a small Llama, written apart from memplan's runner: a script for ``torchrun``.

torchrun --nproc-per-node 2 spread_training.py fsdp2
"""

from __future__ import annotations

import os
import sys


def main(kind: str) -> None:
    """Train three steps."""
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    config = LlamaConfig(
        hidden_size=96, intermediate_size=200, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=1000, use_cache=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.float32)
    model = model.to_empty(device="cuda")
    model.train()
    if kind == "ddp":
        run = torch.nn.parallel.DistributedDataParallel(model)
    else:
        for layer in model.model.layers:
            fully_shard(layer)
        run = fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(3):
        ids = torch.randint(0, 1000, (2, 70)).to("cuda")
        batch = {"input_ids": ids, "labels": ids.clone()}
        with torch.autocast("cuda", torch.bfloat16):
            loss = run(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.detach().item()
        optimizer.zero_grad()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
