from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from memplan.report.tables import estimate_report
from tests.report.factory import make_estimate, make_gpu


def printed(renderable: RenderableType, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, markup=False).print(renderable)
    return file.getvalue()


def test_report_says_what_how_much_and_when() -> None:
    text = printed(estimate_report(make_estimate()), 80)
    assert "llama-2-7b, lora r=8, bfloat16, adamw_fused, 1 x 2048 tokens" in text
    assert "max_memory_allocated()    18.32" in text
    assert "At the allocated peak: step 2, backward, lm_head, linear_backward" in text
    assert "weights           12.00  65.5 %" in text


def test_report_says_whether_it_fits_and_by_how_much() -> None:
    fits = printed(estimate_report(make_estimate(gpu=make_gpu())), 120)
    assert "Fits a10g: 1.00 GiB to spare (22.20 GiB less 450.0 MiB CUDA context)." in fits
    not_ = printed(estimate_report(make_estimate(gpu=make_gpu(fits=False))), 200)
    assert "Does not fit a10g: out of memory at step 2, backward" in not_
    assert "1.00 GiB more than there is" in not_


def test_report_lists_assumptions_evidence_and_warnings() -> None:
    text = " ".join(printed(estimate_report(make_estimate()), 120).split())
    assert (
        "assumed target_modules q_proj+v_proj, optimizer adamw_fused, seq_len 2048, gpu none"
        in text
    )
    assert "evidence exact" in text
    assert "warning rank 8 is only a test" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = printed(estimate_report(make_estimate(gpu=make_gpu(fits=False))), width)
    assert max(map(len, text.splitlines())) <= width


def test_report_in_a_pipe_has_no_colour() -> None:
    assert "\x1b" not in printed(estimate_report(make_estimate(gpu=make_gpu())), 80)
