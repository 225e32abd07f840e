from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.cli import app
from tests.cli.test_app import run
from tests.cli.test_bad_input import refused
from tests.evidence.test_unpickle import attacks

FOLDER = Path(__file__).parents[1] / "evidence" / "snapshots"
LORA = str(FOLDER / "lora-all.pickle.gz")


@pytest.fixture(autouse=True)
def _is_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.HOMES, "explain", "memplan.cli.explain")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", sorted(p.name for p in FOLDER.glob("*.gz")))
def test_report_stays_within_80_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, ["explain", "--snapshot", str(FOLDER / name)])
    assert (code, err) == (0, "")
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "what (inferred)" in out


def test_json_has_the_contracts_keys(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, ["explain", "--snapshot", LORA, "--json"])
    told = json.loads(out)
    assert code == 0
    assert list(told)[:3] == ["schema", "snapshot", "device"]
    assert told["schema"] == "memplan.explain/1"
    assert sum(told["breakdown"].values()) == told["moment"]["allocated_bytes"] == 68_778_496


def test_top_limits_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, ["explain", "--snapshot", LORA, "--top", "1"])
    assert "cross_entropy" not in out
    assert " more)" in out


def test_a_failed_request_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, ["explain", "--snapshot", str(FOLDER / "out-of-memory.pickle.gz")])
    assert "Out of memory at event 69" in out
    assert "asked for 30.52 GiB" in " ".join(out.split())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "needs --snapshot FILE"),
        ("--snapshot none.pickle", "none.pickle: cannot be read: No such file"),
        (f"--snapshot {LORA} --top 0", "--top: expected an integer from 1"),
        (f"--snapshot {LORA} --top x", "--top: expected an integer"),
        (f"--snapshot {LORA} --device 7", "device 7: not in"),
        (f"--snapshot {LORA} --device 9999999999999", "--device: expected an integer"),
        (f"--snapshot {__file__}", "where an instruction of a pickle should be"),
    ],
)
def test_mistakes_are_one_paragraph(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(capsys, ["explain", *line.split()])


@pytest.mark.parametrize("name", ["os.system", "nested", "ext1"])
def test_a_malicious_snapshot_does_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, marker = tmp_path / "s.pickle", tmp_path / "marker"
    path.write_bytes(attacks(marker)[name])
    assert "nothing was run" in refused(capsys, ["explain", "--snapshot", str(path)])
    assert not marker.exists()
