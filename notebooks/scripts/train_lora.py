"""LoRA with transformers' Trainer and PEFT: an ordinary script, which knows nothing of memplan.

    python train_lora.py --batch-size 2 --length 512

The model has the shape of TinyLlama-1.1B and random weights, so that nothing is downloaded.
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments


class RandomTokens(torch.utils.data.Dataset):
    """Sequences of one length, made up."""

    def __init__(self, count: int, length: int, vocab_size: int) -> None:
        self.ids = torch.randint(0, vocab_size, (count, length))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def main() -> None:
    """Train for a few steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        vocab_size=32000,
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
    model.print_trainable_parameters()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=options.batch_size,
            max_steps=options.steps,
            bf16=True,
            report_to=[],
            save_strategy="no",
        )
        data = RandomTokens(options.batch_size * options.steps, options.length, config.vocab_size)
        Trainer(model=model, args=arguments, train_dataset=data).train()
    print(f"peak: {torch.cuda.max_memory_allocated():,} bytes allocated")


if __name__ == "__main__":
    main()
