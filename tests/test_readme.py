"""The README's commands run as they are written, and print what it shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import memplan
from memplan.cli.app import HOMES, main

README = Path(memplan.__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def fences(language: str) -> Iterator[str]:
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE):
        yield found[1]


def commands() -> Iterator[list[str]]:
    for block in fences("bash"):
        for line in block.splitlines():
            words = shlex.split(line.split("&&")[-1], comments=True)
            if words[:1] == ["memplan"]:
                yield words[1:]


def shown() -> Iterator[tuple[str, str]]:
    for block in fences("console"):
        line, _, output = block.partition("\n")
        yield line.removeprefix("$ memplan "), output


def printed(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as stop:
        main(words)
    return stop.value.code, capsys.readouterr().out


@pytest.fixture(autouse=True)
def _run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.yaml").write_text(next(fences("yaml")), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


ELSEWHERE = {"rehearse", "measure", "explain", "virtual", "cuda", "opt-1.3b/config.json"}
"""Words of commands that need the virtual GPU, a real one, or a file of the reader's."""
EVERYWHERE = [
    pytest.param(words, marks=pytest.mark.slow if "validate" in words else ())
    for words in commands()
    if not ELSEWHERE & set(words)
]


@pytest.mark.parametrize("words", EVERYWHERE, ids=" ".join)
def test_command_of_the_readme_runs(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out = printed(capsys, words)
    assert code == (1 if "--check" in words else 0)
    assert out


@pytest.mark.parametrize(("line", "output"), list(shown()), ids=lambda text: str(text)[:40])
def test_readme_shows_what_the_command_prints(
    line: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = printed(capsys, shlex.split(line))
    told = [row.rstrip() for row in out.splitlines()]
    assert told == [row.rstrip() for row in output.splitlines()], out


def test_python_of_the_readme_runs() -> None:
    names: dict[str, object] = {}
    for block in fences("python"):
        exec(compile(block, str(README), "exec"), names)


def test_every_command_appears_in_the_readme() -> None:
    assert all(f"memplan {name}" in TEXT for name in HOMES)


def test_readme_has_the_two_commands_that_set_everything_up() -> None:
    assert "pip install . && memplan estimate --model 7b --method lora --rank 8\n" in TEXT
    assert 'pip install -e ".[dev]" && pytest\n' in TEXT
