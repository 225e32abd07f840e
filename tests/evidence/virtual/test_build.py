"""Building the libraries for a small library that calls CUDA; no torch."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memplan.errors import MissingError
from memplan.evidence.virtual import build
from memplan.evidence.virtual.symbols import Imports

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
FACTS = {
    "MEMPLAN_GPU_NAME": "a card",
    "MEMPLAN_GPU_CAPABILITY": "8.6",
    "MEMPLAN_GPU_TOTAL_BYTES": str(1 << 30),
    "MEMPLAN_GPU_CONTEXT_BYTES": str(100 << 20),
}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library that asks for three functions of the runtime, one of them not written by hand."""
    stub, source = tmp_path / "stub.c", tmp_path / "x.c"
    stub.write_text("int cudaMalloc() {} int cudaFree() {} int cudaWidgetCreate() {}\n")
    names = ("cudaMalloc", "cudaFree", "cudaWidgetCreate")
    calls = " ".join(f"int {name}(); int call_{name}() {{ return {name}(); }}" for name in names)
    source.write_text(calls)
    node = tmp_path / "node.map"
    node.write_text("libcudart.so.13 { global: *; };")
    runtime, target = tmp_path / "libcudart.so", tmp_path / "libx.so"
    common = ["gcc", "-shared", "-fPIC", "-w"]
    options = ["-Wl,-soname,libcudart.so.13", f"-Wl,--version-script={node}"]
    subprocess.run([*common, stub, "-o", runtime, *options], check=True)
    subprocess.run([*common, source, "-o", target, runtime], check=True)
    return target


def in_a_process(folder: Path, program: str, **variables: str) -> str:
    """Output of a Python that has loaded the libraries of ``folder``."""
    start = f"import ctypes; c = ctypes.CDLL({str(folder / 'libcudart.so.13')!r})\n"
    command = [sys.executable, "-c", start + program]
    env = os.environ | FACTS | variables | {"LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout


@needs_gcc
def test_a_build_has_every_symbol_and_is_not_done_twice(library: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = build.build(home, [library], "13.0")
    made = folder.stat().st_mtime_ns

    assert folder == build.build(home, [library], "13.0")
    assert folder.stat().st_mtime_ns == made
    assert [path.name for path in home.iterdir()] == [folder.name]
    assert set((folder / build.COMPLETE).read_text().split()) == {
        "libcudart.so.13",
        "libcuda.so.1",
        "libnvidia-ml.so.1",
    }
    runtime = ctypes.CDLL(str(folder / "libcudart.so.13"))
    handle = ctypes.c_void_p()
    assert runtime.cudaWidgetCreate(ctypes.byref(handle)) == 0
    assert handle.value


@needs_gcc
def test_memory_ends_where_the_card_does(library: Path, tmp_path: Path) -> None:
    folder = build.build(tmp_path / "home", [library], "13.0")
    program = """
p = ctypes.c_void_p(); free = ctypes.c_size_t(); total = ctypes.c_size_t()
sizes = [ctypes.c_size_t(mib << 20) for mib in (900, 100)]
print(*(c.cudaMalloc(ctypes.byref(p), size) for size in sizes))
c.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
print(free.value >> 20, total.value >> 20)
"""
    assert in_a_process(folder, program) == "0 2\n24 1024\n"


@needs_gcc
def test_what_the_host_wrote_comes_back_until_a_kernel_runs(library: Path, tmp_path: Path) -> None:
    folder = build.build(tmp_path / "home", [library], "13.0")
    program = """
p = ctypes.c_void_p(); c.cudaMalloc(ctypes.byref(p), ctypes.c_size_t(512))
sent = ctypes.create_string_buffer(b"memplan!", 8); got = ctypes.create_string_buffer(8)
c.cudaMemcpy(p, sent, ctypes.c_size_t(8), 1)
c.cudaMemcpy(got, p, ctypes.c_size_t(8), 2); print(got.raw)
c.cudaLaunchKernelExC(None, None, None)
c.cudaMemcpy(got, p, ctypes.c_size_t(8), 2); print(got.raw)
"""
    assert in_a_process(folder, program) == f"{b'memplan!'!r}\n{bytes(8)!r}\n"


@needs_gcc
def test_kernels_that_come_at_run_time_are_said_to_do_nothing(
    library: Path, tmp_path: Path
) -> None:
    folder, notes = build.build(tmp_path / "home", [library], "13.0"), tmp_path / "notes"
    program = """
d = ctypes.CDLL("libcuda.so.1")
print(d.cuLaunchKernel(), d.cuLaunchKernelEx())
"""
    assert in_a_process(folder, program, MEMPLAN_GPU_NOTES=str(notes)) == "0 0\n"
    assert notes.read_text() == (
        "memplan: virtual GPU: Triton or run-time compiled kernels: they do nothing; "
        "their launches are not modelled\n"
    )


@needs_gcc
def test_devices_are_those_that_the_program_may_see(library: Path, tmp_path: Path) -> None:
    folder = build.build(tmp_path / "home", [library], "13.0")
    program = "n = ctypes.c_int(); c.cudaGetDeviceCount(ctypes.byref(n)); print(n.value)"
    eight = {"MEMPLAN_GPU_DEVICES": "8"}
    assert in_a_process(folder, program, **eight, CUDA_VISIBLE_DEVICES="3,1,9,2") == "2\n"
    assert in_a_process(folder, program, **eight, CUDA_VISIBLE_DEVICES="0,1,2") == "3\n"


@needs_gcc
@pytest.mark.parametrize("cuda", ["12.8", "13.0"])
def test_both_layouts_compile(cuda: str, library: Path, tmp_path: Path) -> None:
    assert build.is_complete(build.build(tmp_path / "home", [library], cuda))


@needs_gcc
def test_a_build_that_fails_leaves_nothing(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "LINK", ("gcc", "--no-such-option"))
    with pytest.raises(MissingError, match="cannot be built: gcc"):
        build.build(tmp_path / "home", [library], "13.0")
    assert list((tmp_path / "home").iterdir()) == []


def test_the_folder_depends_on_the_libraries_and_on_cuda(tmp_path: Path) -> None:
    library = tmp_path / "x.so"
    library.write_bytes(b"1")
    first = build.folder_name([library], "13.0")
    assert build.folder_name([library], "12.8") != first
    library.write_bytes(b"22")
    assert build.folder_name([library], "13.0") != first


def test_what_creates_hands_out_a_handle_and_the_rest_says_success() -> None:
    symbols = ("cublasCreate_v2", "cublasSgemm_v2", "cusparseLtInit", "cublasGetStream_v2")
    text = build.generated_source(Imports("x", "libx.so", symbols, ""), ["cublasGetStream_v2"])
    assert "int cublasCreate_v2(void **made)" in text
    assert "int cublasSgemm_v2() { return 0; }" in text
    assert "int cusparseLtInit() { return 0; }" in text
    assert "cublasGetStream_v2" not in text


def test_cuda_versions_are_counted_as_cuda_does() -> None:
    assert (build.version_number("13.0"), build.version_number("12.8")) == (13000, 12080)
    with pytest.raises(MissingError, match="names its CUDA version 'none'"):
        build.version_number("none")


def test_sources_are_short() -> None:
    for source in build.SOURCES.iterdir():
        assert len(source.read_text().splitlines()) < 400, source


def test_every_c_file_is_built_into_some_library() -> None:
    named = {name for names in build.FILES.values() for name in names}
    assert named == {path.stem for path in build.SOURCES.glob("*.c")}
