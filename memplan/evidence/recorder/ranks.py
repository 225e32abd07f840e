"""One rank of many, by itself: a rendezvous that needs no others.

torch's own NCCL process group runs; the stand-in for NCCL's collectives return at once, as if all
ranks held what this one holds. What ranks tell each other through the store is answered here.
"""

from __future__ import annotations

import os
from typing import Any

UNIQUE_ID_BYTES = 128  # of an ncclUniqueId, which rank 0 would have put into the store

STORES: list[Any] = []
"""torch's C++ calls a store that is written in Python for as long as Python holds it."""


def stand_alone() -> None:
    """Let ``init_process_group`` of this process succeed without the other ranks."""
    import torch.distributed as dist

    if not dist.is_available():
        return
    from torch.distributed.rendezvous import _rendezvous_handlers

    for scheme in ("env", "tcp", "file"):
        _rendezvous_handlers[scheme] = meet_nobody
    replace_gloo()


def meet_nobody(url: str, **_more: Any) -> Any:
    """A rendezvous at which every answer is there already."""
    rank, size = (int(os.environ.get(name, n)) for name, n in (("RANK", "0"), ("WORLD_SIZE", "1")))
    store = one_rank_store()
    STORES.append(store)
    yield store, rank, size
    raise RuntimeError("a rendezvous of one rank does not change")


def one_rank_store() -> Any:  # noqa: C901 - a class of one-line methods
    """A store that answers for the other ranks: with what was set, else with zeros."""
    import torch.distributed as dist

    class OneRankStore(dist.Store):  # type: ignore[misc]
        """Key-value store without peers."""

        def __init__(self) -> None:
            super().__init__()
            self.values: dict[str, bytes] = {}

        def set(self, key: str, value: Any) -> None:
            self.values[key] = value if isinstance(value, bytes) else str(value).encode()

        def get(self, key: str) -> bytes:
            return self.values.get(key, bytes(UNIQUE_ID_BYTES))

        def add(self, key: str, value: int) -> int:
            """All ranks add at once: what is waited for has come."""
            now = int(self.values.get(key, b"0")) + value * int(os.environ.get("WORLD_SIZE", "1"))
            self.values[key] = str(now).encode()
            return now

        def compare_set(self, key: str, expected: Any, desired: Any) -> bytes:
            self.values.setdefault(key, desired if isinstance(desired, bytes) else desired.encode())
            return self.values[key]

        def delete_key(self, key: str) -> bool:
            return self.values.pop(key, None) is not None

        def check(self, keys: list[str]) -> bool:
            return all(key in self.values for key in keys)

        def wait(self, keys: list[str], timeout: Any = None) -> None:
            """Nobody is waited for."""

        def num_keys(self) -> int:
            return len(self.values)

        def set_timeout(self, timeout: Any) -> None:
            """Nobody is waited for."""

        @property
        def timeout(self) -> Any:
            from datetime import timedelta

            return timedelta(minutes=10)

    return OneRankStore()


def replace_gloo() -> None:
    """Gloo would look for the other ranks' hosts; torch's own fake group does not."""
    from torch.distributed import distributed_c10d as c10d
    from torch.testing._internal.distributed import fake_pg

    plugins = c10d.Backend._plugins
    if fake_pg and "FAKE" in plugins:
        plugins["GLOO"] = plugins["FAKE"]
