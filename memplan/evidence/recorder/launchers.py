"""What ``torchrun`` and ``accelerate launch`` would start: read by their own parsers, not guessed.

    python -m memplan.evidence.recorder.launchers torchrun --nproc-per-node 8 train.py

prints JSON: the command of one process, what is set in its environment, and how many there are.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

Plan = dict[str, Any]


def torchrun(words: list[str]) -> Plan:
    """The plan of a ``torchrun`` command line."""
    from torch.distributed.run import parse_args

    args = parse_args(words)
    count = str(args.nproc_per_node)
    processes = int(count) if count.isdigit() else 0
    command = [args.training_script, *args.training_script_args]
    if args.module:
        command = ["python", "-m", *command]
    elif not args.no_python:
        command = ["python", *command]
    return {"command": command, "environment": {}, "processes": processes}


def accelerate(words: list[str]) -> Plan:
    """The plan of an ``accelerate launch`` command line."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import launch

    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    processes = args.num_processes or 1
    prepare = launch.prepare_multi_gpu_env if processes > 1 else _simple_environment
    before = dict(os.environ)
    environment = {k: v for k, v in prepare(args).items() if before.get(k) != v}
    command = ["python", *(["-m"] if args.module else []), args.training_script]
    return {
        "command": [*command, *args.training_script_args],
        "environment": environment,
        "processes": processes,
    }


def _simple_environment(args: Any) -> dict[str, str]:
    from accelerate.utils import launch

    environment: dict[str, str] = launch.prepare_simple_launcher_cmd_env(args)[1]
    return environment


LAUNCHERS = {"torchrun": torchrun, "accelerate": accelerate}


def main() -> None:
    """Print the plan of the command line."""
    name, *words = sys.argv[1:]
    sys.stdout.write(json.dumps(LAUNCHERS[name](words)) + "\n")


if __name__ == "__main__":
    main()
