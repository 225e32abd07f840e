"""Where results go: rich for people, plain text for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(renderable: RenderableType) -> None:
    """Print for a person: as wide as the terminal, without colour in a pipe or with NO_COLOR."""
    from rich.console import Console

    Console(highlight=False, markup=False, emoji=False).print(renderable)


def write(text: str) -> None:
    """Print for a program: the text and a newline."""
    sys.stdout.write(text + "\n")
