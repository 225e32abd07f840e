from __future__ import annotations

from memplan.report.catalogue import (
    gpu_rows,
    gpus_table,
    method_rows,
    methods_table,
    model_rows,
    models_table,
)
from memplan.vocabulary import CHOICES
from tests.report.test_tables import printed


def test_models_are_sorted_by_size_and_have_their_aliases() -> None:
    rows = model_rows()
    sizes = [row["num_parameters"] for row in rows]
    assert sizes == sorted(sizes)
    assert "7b" in next(row["aliases"] for row in rows if row["name"] == "llama-2-7b")


def test_every_modelled_method_is_described() -> None:
    assert all(row["about"] for row in method_rows())
    names = {row["name"]: row["engine"] for row in method_rows()}
    assert {name for name in names if names[name] == "bytes"} == set(CHOICES["method"].modelled)
    assert set(names) == {*CHOICES["method"].modelled, *CHOICES["method"].known}
    assert "rank" in next(row["keys"] for row in method_rows() if row["name"] == "lora")


def test_every_gpu_says_where_its_figures_come_from() -> None:
    for row in gpu_rows():
        assert row["source"], row["name"]
        assert row["context_source"], row["name"]
        assert 0 < row["context_bytes"] < row["capacity_bytes"]


def test_contract_names_of_gpus_are_there() -> None:
    names = {row["name"] for row in gpu_rows()}
    assert {"a10g", "l4", "l40s", "a100-80gb", "h100-80gb", "h200", "t4"} <= names


def test_tables_fit_80_columns() -> None:
    for table in (
        models_table(model_rows()),
        methods_table(method_rows()),
        gpus_table(gpu_rows()),
    ):
        text = printed(table, 80)
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
