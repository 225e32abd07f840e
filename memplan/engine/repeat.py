"""Identical layers: which of them are run, and how a run of a few stands for all."""

from __future__ import annotations

from dataclasses import dataclass

REPRESENTATIVES = 6
"""Two at either end, where neighbours differ, and two in the middle that must turn out the same."""
TEMPLATE = 3
"""The representative that is copied; the one before it must have done exactly the same."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many layers a model has and how many of them are run.

    Attributes:
        total: ``num_hidden_layers``.
        run: Layers that the engine builds and runs.
    """

    total: int
    run: int

    @classmethod
    def unrolled(cls, total: int) -> Depth:
        """Every layer is run."""
        return cls(total, total)

    @classmethod
    def representative(cls, total: int) -> Depth:
        """Six layers stand for all."""
        return cls(total, min(total, REPRESENTATIVES))

    @property
    def extra(self) -> int:
        """Copies of the template that are to be added."""
        return self.total - self.run

    def copies(self, layer: int) -> int:
        """How many layers this representative stands for."""
        return 1 + self.extra if layer == TEMPLATE else 1
