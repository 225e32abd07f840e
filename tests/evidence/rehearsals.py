"""A stand-in for the virtual GPU's environment: this Python, and scripts that leave a recording."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from memplan.evidence import rehearse
from memplan.evidence.recording import Recording
from memplan.evidence.virtual.environment import Environment
from tests.evidence.test_recording import RECORDING

SCRIPT = """import json, os, pathlib, sys
settings = json.loads(os.environ["MEMPLAN_REHEARSAL"])
recording = json.loads({recording!r})
pathlib.Path(settings["out"], "1.json").write_text(json.dumps(recording))
print("said", os.environ.get("RANK"), os.environ.get("WORLD_SIZE"), *sys.argv[1:])
sys.exit({code})
"""


def fake_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rehearsals run in this Python."""
    own = Environment(Path(sys.executable), Path(), {})
    monkeypatch.setattr(rehearse, "require", lambda venv: own)
    monkeypatch.setattr(rehearse, "environment_variables", lambda *a, **k: {})


def write_script(folder: Path, recording: Recording = RECORDING, code: int = 0) -> Path:
    """A script that leaves this recording."""
    path = folder / "train.py"
    path.write_text(SCRIPT.format(recording=json.dumps(recording.to_mapping()), code=code))
    return path
