"""The command line: parse, call, render, and nothing else.

Flags are the workload's keys and travel as text: the workload checks them, so that a bad number
reads the same in a flag, in a file and in Python. typer's own conversion was the alternative; it
would say the same things twice, in other words, and costs a third of the start-up.
"""
