"""An autograd that counts bytes: eager PyTorch with sizes in place of data.

A ``Storage`` is one block of the caching allocator; CPython's reference counts decide when it dies,
exactly as they decide it for a tensor of eager PyTorch. The product of a run is its ``Tape``: every
allocation and every free, in their real order. Formulas were the alternative; they cannot say in
which order things die, and the allocator's own number depends on it.

``Source:`` names a file at the release whose behaviour was recorded. Python files, torch's headers
and ``derivatives.yaml`` (quoted in short, for real numbers) were read at that release; other C++
and CUDA files at the nearest commit available, and what they say is confirmed by the event streams
recorded from that release. ``Inferred:`` marks what the streams alone say.
"""

from memplan.engine.autograd import AccumulateGrad, Node, attach, backward, needs_grad
from memplan.engine.kernels import Kernels
from memplan.engine.state import S, State, autocast, evaluation, no_grad, run
from memplan.engine.tape import Tape
from memplan.engine.tensor import Storage, Tensor, alias, empty, numel, restrided

__all__ = [
    "AccumulateGrad",
    "Kernels",
    "Node",
    "S",
    "State",
    "Storage",
    "Tape",
    "Tensor",
    "alias",
    "attach",
    "autocast",
    "backward",
    "empty",
    "evaluation",
    "needs_grad",
    "no_grad",
    "numel",
    "restrided",
    "run",
]
