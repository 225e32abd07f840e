"""Watches torch's allocator from inside the process that trains, and changes nothing there.

It reads counters, torch's own history of allocations and the names of modules; it keeps no tensor.
Phases are marked by the loop (``end_phase``), or found by hooks where the loop is not ours
(``recorder.hooks``). A profiler was the alternative: it keeps shapes and times that nobody asks for
here, and not the order of frees.
"""

from memplan.evidence.recorder.recorder import Recorder

__all__ = ["Recorder"]
