from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

from memplan.evidence.metamath import INFERRED_FROM, LONGEST_LENGTH, MEAN_LENGTH, Case, method_of
from memplan.evidence.published import FOLDER, NotCovered, Record, load_records, workload_of
from memplan.method_table import BY_NAME
from memplan.workload import Workload

RECORDS = {record.id: record for record in load_records()}
LORA = RECORDS["peft-mm-lora-rank64-20260715-maxres"]


def case(record: Record) -> Case:
    found = workload_of(record)
    assert isinstance(found, Case)
    return found


def test_every_record_that_was_given_is_shipped_once() -> None:
    assert len(load_records()) == len(RECORDS) == 501


def test_no_file_is_large() -> None:
    assert all(file.stat().st_size < 500_000 for file in FOLDER.glob("*.jsonl"))


def test_records_say_where_they_come_from_and_what_was_published() -> None:
    for record in load_records():
        assert record.place, record.id
        assert {"commit", "url", "stored_file_id", "original"} & set(record.source), record.id
        assert record.value, record.id
        assert record.unit or record.measured_bytes is None, record.id
        assert record.grade in "ABC", record.id
        assert record.num_gpus >= 1, record.id


def test_the_two_suspect_rows_are_marked() -> None:
    suspect = {record.id for record in load_records() if record.suspect}
    assert suspect == {"litgpt-hub-gemma-2b-full-20240315", "litgpt-hub-phi-3-full-20240705"}


def test_files_hold_one_record_a_line_and_no_key_without_a_value() -> None:
    for file in FOLDER.glob("*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert None not in row.values()


def test_what_is_covered_is_what_the_engine_has() -> None:
    covered = [r for r in load_records() if isinstance(workload_of(r), Case)]
    counts = Counter(r.method for r in covered)
    some = {"full": 6, "lora": 8, "lora(rslora)": 8, "prompt_tuning": 14, "dora": 8, "ia3": 10}
    assert some.items() <= counts.items()
    assert all(BY_NAME[method_of(method)].modelled for method in counts)
    for record in covered:
        Workload.resolve(case(record).keys)


def test_the_first_obstacle_is_the_reason() -> None:
    assert workload_of(replace(LORA, num_gpus=2)) == NotCovered("several GPUs")
    assert workload_of(replace(LORA, method="xlora")) == NotCovered("method: xlora")
    assert workload_of(replace(LORA, metric="nvml used")) == NotCovered("metric: nvml used")
    assert workload_of(RECORDS["litgpt-hub-llama-3.2-1b-lora-20240927"]) == NotCovered(
        "library: litgpt"
    )
    assert workload_of(RECORDS["peft-pr3157-lora-r32-gc0"]) == NotCovered(
        "inputs: the longest batch is not published"
    )


def test_the_lengths_are_the_same_for_every_row() -> None:
    cases = [case(r) for r in load_records() if isinstance(workload_of(r), Case)]
    assert {c.keys["seq_len"] for c in cases if c.quantity == "reserved"} == {LONGEST_LENGTH}
    assert {c.keys["seq_len"] for c in cases if c.quantity == "after_step"} == {MEAN_LENGTH}
    assert all(id in RECORDS for id in INFERRED_FROM)


def test_the_script_empties_the_cache_less_often_since_november_2025() -> None:
    old = case(RECORDS["peft-mm-lora-rank64-20250617-maxres"]).batches
    new = case(LORA).batches
    assert [batch.empties_cache for batch in old] == [True, True, False]
    assert [batch.empties_cache for batch in new] == [False, True, False]
