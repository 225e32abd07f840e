"""The command line: parse, call, render, and nothing else.

Flags are the workload's keys and travel as text: the workload checks them, so that a bad number
reads the same in a flag, in a file and in Python. typer prints the help. To let it parse as well
was the alternative, but it loads and builds a validator for each option, which takes longer than
the estimate.
"""
