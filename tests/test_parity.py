"""memplan against the recorded runs of the real libraries on the virtual GPU, to the byte."""

from pathlib import Path
from typing import Any

import pytest

from memplan.errors import MemplanError
from tests.evidence.agreement import differences, public_numbers
from tests.evidence.record import read_records

Json = dict[str, Any]

ONE_IN = 5
"""A default run takes one record in so many, ``pytest -m slow`` the others."""
EVIDENCE = Path(__file__).parent / "evidence"
PARITY = [
    r for name in ("parity", "rare", "presets") for r in read_records(EVIDENCE / f"{name}.jsonl")
]
VERDICTS = read_records(EVIDENCE / "verdicts.jsonl")


def parameters(records: list[Json]) -> list[Any]:
    """Records as test parameters; one that is known to be off must be off, with its cause."""
    return [
        pytest.param(
            record,
            id=record["name"],
            marks=[
                *([pytest.mark.xfail(reason=record["known_off"])] if "known_off" in record else []),
                *([pytest.mark.slow] if number % ONE_IN else []),
            ],
        )
        for number, record in enumerate(records)
    ]


MEASURED = [record for record in PARITY if record["error"] is None]
REFUSED = [record for record in PARITY if (record["error"] or "").startswith("refused")]
STOPPED = [record for record in PARITY if record["error"] == "out of memory"]


@pytest.mark.parametrize("record", parameters(MEASURED))
def test_every_number_is_the_recorded_one(record: Json) -> None:
    assert differences(record) == []


@pytest.mark.parametrize("record", parameters(MEASURED[::10]))
def test_an_estimate_gives_those_peaks(record: Json) -> None:
    assert public_numbers(record) == (record["peak"], True)


@pytest.mark.parametrize("record", parameters(REFUSED))
def test_what_the_libraries_refuse_is_refused(record: Json) -> None:
    with pytest.raises(MemplanError):
        differences(record)


@pytest.mark.parametrize("record", parameters([*STOPPED, *VERDICTS]))
def test_it_fits_or_stops_where_the_card_decided(record: Json) -> None:
    assert differences(record) == []


@pytest.mark.parametrize("record", parameters([*STOPPED, *VERDICTS][::4]))
def test_an_estimate_says_whether_it_fits(record: Json) -> None:
    assert public_numbers(record)[1] is (record["error"] is None)


def test_the_evidence_is_as_wide_as_it_claims() -> None:
    assert len(MEASURED) >= 200
    assert sum("capacity_gib" in record for record in VERDICTS) >= 40
    assert {record["device"]["capability"] for record in MEASURED} == {"8.0", "8.6", "8.9", "9.0"}
