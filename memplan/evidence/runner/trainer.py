"""``loop: trainer``: transformers' Trainer, as a user of it calls it, with nothing of it replaced.

What it allocates between the phases (batches, counts of tokens, the loss that it adds up) is its
own; the phases are found from outside, by ``recorder.hooks``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memplan.evidence.runner.methods import apply_method
from memplan.evidence.runner.models import load_model
from memplan.evidence.runner.optimizers import (
    LR,
    MIN_8BIT_SIZE,
    build_optimizer,
    trainer_name,
    trainers_optim_args,
)

if TYPE_CHECKING:
    from memplan.evidence.runner.loops import Marks

Json = dict[str, Any]


def train_with_trainer(w: Json, model_config: Mapping[str, Any], recorder: Marks) -> Any:
    """Load, then hand the model to transformers' Trainer.

    Raises:
        ValueError: There is no optimizer, which the Trainer does not do without.
    """
    from transformers import Trainer

    model = load_model(w, model_config)
    recorder.end_phase("load", 0)
    model = apply_method(w, model)
    recorder.end_phase("adapter", 0)
    optimizers = (own_optimizer(w, model), None)
    recorder.install_hooks(model)
    vocab = model.config.get_text_config().vocab_size
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=training_arguments(w, folder),
            train_dataset=Samples(w, vocab, count_training(w)),
            eval_dataset=Samples(w, vocab, w["eval_batches"] * w["eval_micro_batch_size"]),
            compute_metrics=no_metrics if w["eval"] == "predictions" else None,
            callbacks=[after_training(recorder)],
            optimizers=optimizers,
        )
        trainer.train()
    return model


def own_optimizer(w: Json, model: Any) -> Any:
    """The optimizer, if the Trainer has no word for it; else none, and it makes its own.

    Raises:
        ValueError: There is to be none.
    """
    if w["optimizer"] == "none":
        raise ValueError("transformers' Trainer always has an optimizer")
    is_own = w["method"] == "lora_fa" or MIN_8BIT_SIZE in w.get("optim_args", {})
    if trainer_name(w["optimizer"]) and not is_own:
        return None
    return build_optimizer(w, model, [p for p in model.parameters() if p.requires_grad])


def training_arguments(w: Json, folder: str) -> Any:
    """The workload in the Trainer's words; nothing is logged, saved or reported."""
    from transformers import TrainingArguments

    checkpointing = w["activation_checkpointing"]
    return TrainingArguments(
        folder,
        per_device_train_batch_size=w["micro_batch_size"],
        gradient_accumulation_steps=w["gradient_accumulation_steps"],
        max_steps=w["steps"],
        learning_rate=LR,
        optim=trainer_name(w["optimizer"]) or "adamw_torch",
        optim_args=trainers_optim_args(w),
        optim_target_modules="all-linear",
        bf16=w["autocast"] == "bfloat16",
        fp16=w["autocast"] == "float16",
        max_grad_norm=w["max_grad_norm"],
        gradient_checkpointing=bool(checkpointing),
        gradient_checkpointing_kwargs={"use_reentrant": checkpointing == "reentrant"},
        use_cache=w["use_cache"],
        per_device_eval_batch_size=w["eval_micro_batch_size"],
        eval_strategy="no" if w["eval"] == "none" else "epoch",
        eval_accumulation_steps=w["eval_accumulation_steps"] or None,
        save_strategy="epoch" if w["save"] else "no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )


def count_training(w: Json) -> int:
    """How many sequences the training takes: one epoch."""
    return int(w["micro_batch_size"] * w["gradient_accumulation_steps"] * w["steps"])


def no_metrics(_predictions: Any) -> Json:
    """What makes the Trainer gather predictions."""
    return {}


def after_training(recorder: Marks) -> Any:
    """A callback that ends the phases after the last step."""
    from transformers import TrainerCallback

    class AfterTraining(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Evaluating and saving, which the epoch ends with, are phases of their own."""

        def on_evaluate(self, _args: Any, state: Any, _control: Any, **_more: Any) -> None:
            """An evaluation is over."""
            recorder.end_evaluation()

        def on_save(self, _args: Any, state: Any, _control: Any, **_more: Any) -> None:
            """A checkpoint has been written."""
            recorder.end_phase("save", state.global_step)

    return AfterTraining()


class Samples:
    """A data set of so many sequences, each of ``seq_len`` tokens."""

    def __init__(self, w: Json, vocab_size: int, count: int) -> None:
        self.w, self.vocab_size, self.count = w, vocab_size, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Json:
        if not 0 <= index < len(self):
            raise IndexError(index)
        import torch

        ids = torch.randint(0, self.vocab_size, (self.w["seq_len"],))
        sample = {"input_ids": ids, "labels": ids.clone()}
        if self.w["attention_mask"] != "none":
            sample["attention_mask"] = torch.ones_like(ids)
        return sample
