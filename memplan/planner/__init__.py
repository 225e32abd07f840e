"""Many estimates at once: comparisons now; sweeps, plans and advice stand on the same call."""
