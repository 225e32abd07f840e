"""How a rank that cannot go on tells the others, which wait for it in a collective.

NCCL itself would let them wait for ten minutes. Each rank looks at the store of the rendezvous once
a second, through a connection of its own: the process group's is taken while it waits for a rank.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any

STOPPED_KEY, DONE_KEY = "stopped", "done"
LOOK_SECONDS = 1.0
HEARD_SECONDS = 1.5
"""For how long who rang gives the others to hear it: the store may be its own."""
LEAVE_SECONDS = 3.0
"""After how long they end: ``torchrun`` ends all with the first, and who rang has to record."""
PART_SECONDS = 600.0
"""For how long a rank that is done waits for the others at most."""
STOPPED = 3
"""Exit code of a rank that another one stopped."""


class Alarm:
    """One rank's bell, and its ear for those of the others."""

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.store = store
        self.rank = rank
        self.size = size
        self.over = False

    def listen(self) -> None:
        """Look at the store from now on, beside the run."""
        threading.Thread(target=self._look, daemon=True).start()

    def ring(self, why: str) -> None:
        """Tell the others that this rank cannot go on, and stay until they have heard it."""
        self.over = True
        with suppress(RuntimeError):  # the store is gone, and with it who would hear
            self.store.set(STOPPED_KEY, f"rank {self.rank} {why}")
        time.sleep(HEARD_SECONDS)

    def part(self) -> None:
        """Wait until the others are done too, or one of them has stopped: they share a store."""
        self.over = True
        until = time.monotonic() + PART_SECONDS
        with suppress(RuntimeError):
            done = self.store.add(DONE_KEY, 1)
            while done < self.size and self.heard() is None and time.monotonic() < until:
                time.sleep(LOOK_SECONDS / 10)
                done = self.store.add(DONE_KEY, 0)

    def _look(self) -> None:
        while not self.over:
            time.sleep(LOOK_SECONDS)
            text = self.heard()
            if text is not None and not self.over:
                leave(text)

    def heard(self) -> str | None:
        """What another rank rang for; none if none did, or if the store is gone."""
        try:
            return self._said()
        except RuntimeError:
            self.over = True
            return None

    def _said(self) -> str | None:
        if not self.store.check([STOPPED_KEY]):
            return None
        text: str = self.store.get(STOPPED_KEY).decode()
        return text


def leave(text: str) -> None:
    """End this process, which waits for what will not come."""
    time.sleep(LEAVE_SECONDS)
    sys.stderr.write(f"stopped, since {text}\n")
    sys.stderr.flush()
    os._exit(STOPPED)
