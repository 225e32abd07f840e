from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import memplan
from memplan.cli.app import HOMES, find_command, main

ROOT = Path(memplan.__file__).parents[1]


def run(capsys: pytest.CaptureFixture[str], words: Sequence[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


@pytest.mark.parametrize("name", HOMES)
def test_every_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, [name, "--help"])
    assert (code, err) == (0, "")
    assert f"Usage: memplan {name}" in out
    assert find_command(name).example in " ".join(out.split())


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_program_without_a_command_lists_them(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, words)
    assert code == 0
    assert all(f"  {name} " in out for name in HOMES)


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, ["--version"]) == (0, f"memplan {memplan.__version__}\n", "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("estmate --model 7b", "unknown command 'estmate'. Did you mean estimate?"),
        ("--versoin", "versoin"),
        ("estimate --modl 7b", "unknown flag '--modl'. Did you mean --model?"),
        ("estimate --model 7b --use-cach", "unknown flag '--use-cach'. Did you mean --use-cache?"),
        ("estimate --model=7b --modl=7b", "unknown flag '--modl'. Did you mean --model?"),
        ("estimate -m 7b", "unknown flag '-m'"),
        ("estimate 7b", "unexpected argument '7b'"),
        ("estimate --model", "--model needs a value"),
        ("estimate --model --rank 8", "--model needs a value"),
        ("estimate --json=yes", "--json takes no value"),
        ("estimate", "model: not given"),
        ("estimate --model 7b --check", "--check: needs --gpu"),
        ("estimate --workload /no/such.yaml", "/no/such.yaml: no such file"),
        ("compare --method lora", "unknown flag '--method'. Did you mean --methods?"),
        ("compare --model 7b --json --csv", "only one of them"),
        ("compare --model 7b --ranks ,", "--ranks: expected entries with commas"),
        ("compare --model 7b --methods lorra", "unknown method 'lorra'. Did you mean 'lora'?"),
        ("models --jsn", "unknown flag '--jsn'. Did you mean --json?"),
    ],
)
def test_mistake_is_one_paragraph_and_exit_code_2(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, line.split())
    assert (code, out) == (2, "")
    assert told in err
    assert err.startswith("memplan: ")
    assert err.count("\n") == 1


def test_closed_pipe_leaves_no_traceback() -> None:
    line = f"{sys.executable} -m memplan models --json | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[\n"
    assert done.stderr == ""


def test_interrupt_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("memplan.cli.app.run", interrupted)
    code, _, err = run(capsys, ["models"])
    assert code == 130
    assert "Traceback" not in err


def test_terminal_without_unicode_gets_a_table_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "memplan", "gpus"],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        cwd=ROOT,
    )
    assert done.returncode == 0
    assert b"a100-80gb" in done.stdout
