"""Cards: capacity, CUDA context and the facts that kernels size their workspaces by.

Data with a source for every figure, in ``gpus.toml``; what an architecture makes of the facts (a
cuBLAS workspace, a tile) belongs to the engine, beside the kernels.
"""

from memplan.hardware.device import Device, device_names, load_device

__all__ = ["Device", "device_names", "load_device"]
