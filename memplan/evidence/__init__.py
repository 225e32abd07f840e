"""Proof: real CUDA runs, the virtual GPU, published measurements, and estimates held against them.

The only place that imports torch, and only inside functions: most of what is here does without, and
starts a Python that has it, in a process of its own. To import it in the command's own process was
the alternative, but the virtual GPU must be chosen before torch is loaded, and peaks are those of a
process's lifetime.
"""
