"""``PYTORCH_CUDA_ALLOC_CONF`` read as torch reads it."""

from __future__ import annotations

import pytest

from memplan.allocator import AllocatorConfig, parse_allocator_config
from memplan.errors import ConfigError, UnsupportedError


def test_nothing_said_is_torchs_default() -> None:
    assert parse_allocator_config("") == AllocatorConfig()


def test_every_option_that_moves_memory_is_read() -> None:
    assert parse_allocator_config(
        "expandable_segments:True, max_split_size_mb:128, max_non_split_rounding_mb:64,"
        "large_segment_size_mb:32,garbage_collection_threshold:0.8,"
        "per_process_memory_fraction:0.5,roundup_power2_divisions:4"
    ) == AllocatorConfig(
        expandable_segments=True,
        max_split_size_mb=128,
        max_non_split_rounding_mb=64,
        large_segment_size_mb=32,
        garbage_collection_threshold=0.8,
        per_process_memory_fraction=0.5,
        roundup_power2_divisions=(4,) * 16,
    )


def test_options_of_host_memory_are_accepted() -> None:
    text = "pinned_use_background_threads:True,release_lock_on_cudamalloc:False,backend:native"
    assert parse_allocator_config(text) == AllocatorConfig()


def test_the_limit_of_unsplit_rounding_follows_the_large_segment() -> None:
    assert parse_allocator_config("large_segment_size_mb:33").max_non_split_rounding_mb == 33


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[2:4,>:8]", (4, 4) + (8,) * 14),
        ("[1:2,4:8]", (2, 0, 8) + (0,) * 13),
        ("[4:2,16:8,>:4]", (2, 2, 2, 0, 8) + (4,) * 11),
        ("[>:2]", (2,) * 16),
        ("[65536:4]", (4,) * 16),
    ],
)
def test_divisions_by_interval(text: str, expected: tuple[int, ...]) -> None:
    config = parse_allocator_config(f"roundup_power2_divisions:{text}")
    assert config.roundup_power2_divisions == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("expandable_segment:True", "expandable_segments"),
        ("max_split_size:20", "max_split_size_mb"),
        ("foo:1", "Known: "),
        ("expandable_segments:true", "True or False"),
        ("expandable_segments", "option:value"),
        ("expandable_segments:True,,max_split_size_mb:64", "option:value"),
        ("max_split_size_mb:10", "at least large_segment_size_mb, 20 MiB"),
        ("max_split_size_mb:1.5", "whole number"),
        ("max_split_size_mb:-1", "whole number"),
        ("max_non_split_rounding_mb:10", "at least large_segment_size_mb"),
        ("large_segment_size_mb:10", "above 10 MiB"),
        ("garbage_collection_threshold:1.5", "(0, 1)"),
        ("garbage_collection_threshold:0", "(0, 1)"),
        ("per_process_memory_fraction:1.5", "[0, 1]"),
        ("per_process_memory_fraction:lots", "expects a number"),
        ("per_process_memory_fraction:nan", "[0, 1]"),
        ("roundup_power2_divisions:3", "power of two"),
        ("roundup_power2_divisions:[3:4]", "power of two"),
        ("roundup_power2_divisions:[4:3]", "powers of two"),
        ("roundup_power2_divisions:[4]", "option:value"),
        ("roundup_power2_divisions:[4:2", "option:value"),
    ],
)
def test_what_torch_refuses_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_allocator_config(text)
    assert complaint in str(error.value)


@pytest.mark.parametrize("text", ["backend:cudaMallocAsync", "throw_on_cudamalloc_oom:True"])
def test_what_is_not_modelled_says_so(text: str) -> None:
    with pytest.raises(UnsupportedError):
        parse_allocator_config(text)
