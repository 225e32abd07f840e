from __future__ import annotations

import csv
import io
import json

import pytest

from memplan.planner.compare import Case, Comparison, Refusal, Row
from memplan.report.compare import comparison_markdown, comparison_report
from memplan.report.json import render_json
from memplan.report.rows import comparison_csv, comparison_mapping
from tests.report.factory import make_estimate, make_gpu
from tests.report.test_tables import printed

LORA = Case("lora", 8, "none", 1, 2048)
SOFT = Case("prompt_tuning", None, "none", 1, 2048)
FULL = Case("full", None, "nf4", 1, 2048)


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        rows=(
            Row(LORA, make_estimate(gpu=make_gpu()), "a10g"),
            Row(SOFT, make_estimate(gpu=make_gpu(fits=False)), None),
        ),
        refused=(Refusal(FULL, "the | base is frozen"),),
    )


def test_table_fits_80_columns_and_no_name_is_broken(comparison: Comparison) -> None:
    text = printed(comparison_report(comparison), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "prompt_tuning bf16" in text
    assert "yes +1.00" in text
    assert "no -1.00" in text


def test_refused_rows_stand_in_the_table_with_the_reason(comparison: Comparison) -> None:
    text = printed(comparison_report(comparison), 80)
    assert "full          nf4" in text
    assert "full on nf4: the | base is frozen" in text


def test_json_has_case_estimate_and_refusals(comparison: Comparison) -> None:
    found = json.loads(render_json(comparison_mapping(comparison)))
    assert [row["method"] for row in found["rows"]] == ["lora", "prompt_tuning", "full"]
    assert found["rows"][0]["rank"] == 8
    assert found["rows"][0]["refused"] is None
    assert found["rows"][0]["peak_allocated_bytes"] == make_estimate().peak_allocated_bytes
    assert found["rows"][2]["refused"] == "the | base is frozen"


def test_csv_reads_back(comparison: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(comparison_csv(comparison))))
    assert [row["method"] for row in rows] == ["lora", "prompt_tuning", "full"]
    assert int(rows[0]["peak_allocated_bytes"]) == make_estimate().peak_allocated_bytes
    assert rows[0]["fits"] == "true"
    assert rows[2]["refused"] == "the | base is frozen"


def test_markdown_rows_all_have_the_same_number_of_cells(comparison: Comparison) -> None:
    text = comparison_markdown(comparison).replace("\\|", "")
    memory, costs = (table.splitlines() for table in text.split("\n\n"))
    assert [len(memory), len(costs)] == [2 + 3, 2 + 2]
    assert [len({line.count("|") for line in table}) for table in (memory, costs)] == [1, 1]
