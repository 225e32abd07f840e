"""Quantised base models under transformers and PEFT: bitsandbytes, torchao, hqq."""

from memplan.quantization.prepare import prepare_model_for_kbit_training
from memplan.quantization.schemes import replace_linears

__all__ = ["prepare_model_for_kbit_training", "replace_linears"]
