"""One file a family: its forward, as transformers runs it."""
