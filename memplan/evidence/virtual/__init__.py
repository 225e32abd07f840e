"""The virtual GPU: the CUDA build of torch on libraries that keep its books and compute nothing.

Device memory is address space that nobody touches, kernels do nothing, numbers read back are zeros;
all that decides memory is torch's own code on the host: the caching allocator, the dispatcher,
autograd, the optimizers. To write an allocator and an autograd of our own was the alternative; the
fast engine does that, and this is what it is held against, and what runs a script as it is.

``c/`` holds the libraries, ``build`` links them for one torch, ``environment`` makes and finds a
Python that has it, ``launch`` says what that Python is to be started with, ``selftest`` checks it.
"""
