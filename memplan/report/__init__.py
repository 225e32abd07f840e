"""Results in, text out: tables for people, JSON, CSV and Markdown for programs.

A report takes a result and returns a renderable or a string; it never computes a size and never
prints. Formatting inside the results was the alternative: then every consumer of a number would
drag a unit and a rounding along with it.
"""
