"""What became of a block decides its category."""

from __future__ import annotations

import pytest

from memplan.categories import (
    BACKWARD,
    BASE,
    BATCH,
    BUCKETS,
    OTHER,
    SHARDS,
    WORKSPACE,
    Fate,
    category_of,
)


@pytest.mark.parametrize(
    ("fate", "category"),
    [
        (Fate(OTHER, "load", survives=True), "weights"),
        (Fate(OTHER, "load", survives=False), "temporaries"),
        (Fate(OTHER, "adapter", survives=True), "adapters"),
        (Fate(BASE, "adapter", survives=True), "weights"),
        (Fate(OTHER, "forward", survives=True), "activations"),
        (Fate(BASE, "forward", survives=True), "activations"),
        (Fate(OTHER, "forward", survives=False), "temporaries"),
        (Fate(BATCH, "forward", survives=False), "inputs"),
        (Fate(WORKSPACE, "backward", survives=True), "workspaces"),
        (Fate(BACKWARD, "backward", survives=True), "temporaries"),
        (Fate(BACKWARD, "backward", survives=True, is_gradient=True), "gradients"),
        (Fate(OTHER, "backward", survives=False, is_used=True), "activations"),
        (Fate(OTHER, "backward", survives=False), "temporaries"),
        (Fate(OTHER, "optimizer_step", survives=True), "optimizer_states"),
        (Fate(OTHER, "zero_grad", survives=True), "temporaries"),
        (Fate(BUCKETS, "adapter", survives=True), "gradients"),
        (Fate(BUCKETS, "forward", survives=True), "gradients"),
        (Fate(SHARDS, "load", survives=True), "weights"),
        (Fate(SHARDS, "forward", survives=True), "weights"),
        (Fate(SHARDS, "forward", survives=False), "temporaries"),
        (Fate(SHARDS, "backward", survives=True, is_gradient=True), "gradients"),
        (Fate(OTHER, "eval", survives=True), "temporaries"),
    ],
)
def test_category(fate: Fate, category: str) -> None:
    assert category_of(fate) == category
