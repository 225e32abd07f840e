"""What is read from the libraries of torch."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from memplan.errors import MissingError
from memplan.evidence.virtual import symbols
from memplan.evidence.virtual.symbols import parse_needed, parse_undefined, read_imports, stem_of

NEEDED = """
 0x0000000000000001 (NEEDED)             Shared library: [libcudart.so.13]
 0x0000000000000001 (NEEDED)             Shared library: [libc10.so]
 0x000000000000000e (SONAME)             Library soname: [libcublas.so.13]
"""
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")


def test_only_libraries_of_cuda_are_taken_from_those_needed() -> None:
    assert parse_needed(NEEDED) == {"cudart": "libcudart.so.13"}


def test_stem_is_the_name_without_what_all_have() -> None:
    assert [stem_of(n) for n in ("libcudart.so.13", "libnvidia-ml.so.1")] == [
        "cudart",
        "nvidia-ml",
    ]


def test_symbols_keep_their_version_node_and_those_of_c_are_dropped() -> None:
    listing = "U cudaMalloc@libcudart.so.13\nU memcpy@GLIBC_2.14\nU cuMemCreate\nU _ZN2at\n\n"
    assert parse_undefined(listing) == {"cudaMalloc": "libcudart.so.13", "cuMemCreate": ""}


def test_a_tool_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingError, match=r"readelf: not found.*gcc and binutils"):
        read_imports([Path("x.so")])


def test_a_tool_that_fails_says_its_last_line() -> None:
    with pytest.raises(MissingError, match="cannot be built: sh: two"):
        symbols.run("sh", "-c", "echo one >&2; echo two >&2; exit 1")


@needs_gcc
def test_imports_of_a_real_library_are_sorted_by_library(tmp_path: Path) -> None:
    source = tmp_path / "x.c"
    source.write_text(
        "int cudaMalloc(); int cublasCreate_v2(); int cuInit();\n"
        "int f() { return cudaMalloc() + cublasCreate_v2() + cuInit(); }\n"
    )
    for name in ("cudart", "cublas"):
        stub = f"-Wl,-soname,lib{name}.so.13"
        empty = tmp_path / "empty.c"
        empty.write_text("")
        target = tmp_path / f"lib{name}.so"
        subprocess.run(["gcc", "-shared", empty, "-o", target, stub], check=True)
    library = tmp_path / "libx.so"
    command = ["gcc", "-shared", "-fPIC", str(source), "-o", str(library), "-Wl,--no-as-needed"]
    subprocess.run([*command, f"-L{tmp_path}", "-lcudart", "-lcublas"], check=True)

    found = {i.soname: i.symbols for i in read_imports([library])}

    assert next(iter(found)) == "libcudart.so.13"
    assert found["libcudart.so.13"] == ("cudaMalloc",)
    assert found["libcublas.so.13"] == ("cublasCreate_v2",)
    assert found["libcuda.so.1"] == ("cuInit",)
    assert found["libnvidia-ml.so.1"] == ()
