from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import validate
from memplan.cli.options import Command
from memplan.errors import ConfigError
from memplan.evidence.records import append
from memplan.evidence.verdicts import Tolerance
from tests.evidence.test_validate import measured

COMMAND: Command = validate.COMMANDS["validate"]


def run(*words: str) -> int:
    return COMMAND.run(list(words), program="memplan validate")


def test_table_fits_80_columns_and_ends_with_the_summary(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("--against", "published") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "published: measured on real cards by others" in out
    assert "Not covered yet: " in out
    assert " ".join(out.split()).endswith(
        "Within the tolerance (median 0.50%, worst 3.00% or explained)."
    )


def test_all_rows_are_listed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--all", "--source", "torchtitan") == 0
    out = capsys.readouterr().out
    assert "titan-405b-cp4" in out
    assert "no: several GPUs" in out


@pytest.mark.slow
def test_json_has_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result["schema"] == "memplan.validation/1"
    assert len(result["rows"]) == 501
    assert result["passed"] is True
    assert result["core"]["count"] > 100


def test_exit_code_1_past_the_tolerance(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--method", "prompt_tuning", "--tolerance", "0.01") == 1
    assert "Not within it" in " ".join(capsys.readouterr().out.split())


def test_recorded_measurements_are_read_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.jsonl"
    append(path, measured())
    assert run("--against", str(path)) == 0
    assert "not a real card" in capsys.readouterr().out


@pytest.mark.parametrize("label", ["cuda", "virtual"])
def test_measuring_now_runs_the_list(
    label: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[dict[str, Any]] = []

    def measure(keys: dict[str, Any], *, label: str) -> Any:
        seen.append({**keys, "label": label})
        return measured()

    monkeypatch.setattr("memplan.evidence.measure.measure", measure)
    assert run("--against", label) == 0
    assert len(seen) == len(validate.WORKLOADS) == 6
    assert {item["label"] for item in seen} == {label}
    assert "allocated" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "a", "-1", "1,2,3", "nan", "inf"])
def test_a_tolerance_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--tolerance"):
        validate.read_tolerance(text)


def test_tolerance_in_percent() -> None:
    assert validate.read_tolerance(None) == Tolerance(0.005, 0.03)
    assert validate.read_tolerance("1") == Tolerance(0.01, 0.03)


def test_an_unknown_evidence_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither published, cuda, virtual nor a file"):
        run("--against", "publshed")


def test_published_validation_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft', 'bitsandbytes'): sys.modules[name] = None\n"
        "from memplan.cli.validate import COMMANDS\n"
        "words = ['--method', 'lora', '--json']\n"
        "sys.exit(COMMANDS['validate'].run(words, program='memplan validate'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
