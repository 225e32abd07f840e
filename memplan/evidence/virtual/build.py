"""Builds the libraries of the virtual GPU for one torch: our C, and functions that do nothing.

Each library of CUDA that torch asks for is linked under its real name and version node, from our C
and from a function for every other symbol asked for, which returns 0 (success); those that create
something hand out a handle. What is built lies in a folder named by a hash of all that went in.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from memplan.errors import MissingError
from memplan.evidence.virtual.symbols import Imports, read_imports, run

SOURCES = Path(__file__).parent / "c"
# C files of each library; one that is not listed is generated entirely.
FILES = {
    "cudart": ("device", "properties", "memory", "copies", "kernels", "streams", "notes"),
    "cuda": ("driver",),
    "cublas": ("cublas",),
    "cublasLt": ("cublaslt",),
    "cudnn": ("cudnn",),
    "cufft": ("cufft",),
    "cusolver": ("cusolver",),
    "cusparse": ("cusparse",),
    "nccl": ("nccl",),
    "nvidia-ml": ("nvml",),
    "nvrtc": ("nvrtc",),
}
COMPILE = ("gcc", "-std=gnu11", "-O1", "-fPIC", "-fvisibility=hidden", "-w", "-c")
LINK = ("gcc", "-shared", "-fPIC", "-w", "-O1", "-std=gnu11")
# Names of functions whose first argument receives what they create.
CREATES = re.compile(r"Create|Init(Rank|All)|_createDescr|Init$|DescriptorInit")
NOT_CREATES = re.compile(r"cusparseLt|ncclMem|nvshmem|cufftCreate$|cublasLtMatmulAlgoInit$")
# Libraries, relative to site-packages, that call CUDA: torch's own, and those often beside it.
PATTERNS = (
    "torch/lib/*.so",
    "torch/_C*.so",
    "bitsandbytes/libbitsandbytes_cuda{major}*.so",
    "torchvision/*.so",
    "torchaudio/lib/*.so",
    "xformers/*.so",
    "flash_attn_2_cuda*.so",
)
COMPLETE = "complete"
UNFINISHED = "building-"


def cuda_libraries(packages: Path, cuda: str) -> tuple[Path, ...]:
    """Libraries under ``packages`` that call CUDA ``cuda`` (as torch/version.py has it: 13.0)."""
    major = cuda.partition(".")[0]
    found = (packages.glob(pattern.format(major=major)) for pattern in PATTERNS)
    return tuple(path for group in found for path in sorted(group))


def folder_name(libraries: Iterable[Path], cuda: str) -> str:
    """Name for what is built: a hash over our sources and over what they are built for."""
    digest = hashlib.sha256(cuda.encode())
    for source in sorted(
        (*SOURCES.iterdir(), Path(__file__), Path(__file__).with_name("symbols.py"))
    ):
        digest.update(source.name.encode() + source.read_bytes())
    for library in libraries:
        about = library.stat()
        digest.update(f"{library}|{about.st_size}|{about.st_mtime_ns}".encode())
    return f"lib-{digest.hexdigest()[:16]}"


def build(home: Path, libraries: Iterable[Path], cuda: str) -> Path:
    """Folder with the libraries for torch's ``libraries``; built unless it is there.

    Raises:
        MissingError: gcc, nm or readelf is not there, or the C does not compile.
    """
    libraries = tuple(libraries)
    target = home / folder_name(libraries, cuda)
    if is_complete(target):
        return target
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=home) as folder:
        work = Path(folder) / target.name
        work.mkdir()
        _build_all(work, read_imports(libraries), cuda)
        _replace(work, target)
    return target


def is_complete(folder: Path) -> bool:
    """Whether a build ended there."""
    return (folder / COMPLETE).is_file()


def version_number(cuda: str) -> int:
    """13000 for 13.0, 12080 for 12.8: how CUDA counts its versions."""
    match = re.fullmatch(r"(\d+)\.(\d+).*", cuda)
    if not match:
        raise MissingError(f"torch names its CUDA version {cuda!r}; expected one such as 13.0.")
    return int(match[1]) * 1000 + int(match[2]) * 10


def generated_source(imports: Imports, written: Iterable[str]) -> str:
    """C for the symbols that nobody wrote by hand."""
    lines = ["#include <stdlib.h>"]
    lines += (_do_nothing(symbol) for symbol in imports.symbols if symbol not in set(written))
    return "\n".join(lines) + "\n"


def _do_nothing(symbol: str) -> str:
    if CREATES.search(symbol) and not NOT_CREATES.match(symbol):
        return f"int {symbol}(void **made) {{ if (made) *made = calloc(1, 256); return 0; }}"
    return f"int {symbol}() {{ return 0; }}"


def _build_all(work: Path, libraries: Iterable[Imports], cuda: str) -> None:
    names: list[str] = []
    for imports in libraries:
        runtime = work / names[0] if names else None
        _build_one(work, imports, runtime, version_number(cuda))
        names.append(imports.soname)
    (work / "libcuda.so").symlink_to("libcuda.so.1")  # the name that Triton links against
    for left in (*work.glob("*.o"), *work.glob("*.map"), *work.glob("*_generated.c")):
        left.unlink()
    (work / COMPLETE).write_text("\n".join(names) + "\n", encoding="utf-8")


def _build_one(work: Path, imports: Imports, runtime: Path | None, version: int) -> None:
    objects = list(_compile(work, imports.stem, version))
    written = {name for file in objects for name in _defined(file)}
    generated = work / f"{imports.stem}_generated.c"
    generated.write_text(generated_source(imports, written), encoding="utf-8")
    options = [f"-Wl,-soname,{imports.soname}"]
    if imports.node:
        node = work / f"{imports.stem}.map"
        node.write_text(f"{imports.node} {{ global: *; }};\n", encoding="utf-8")
        options.append(f"-Wl,--version-script={node}")
    beside = [runtime] if runtime else []
    output = work / imports.soname
    run(*LINK, *objects, generated, "-o", output, *options, *beside, "-ldl", "-lpthread")


def _compile(work: Path, stem: str, version: int) -> Iterator[Path]:
    for name in FILES.get(stem, ()):
        target = work / f"{stem}-{name}.o"
        run(*COMPILE, f"-DCUDA_VERSION={version}", SOURCES / f"{name}.c", "-o", target)
        yield target


def _defined(compiled: Path) -> list[str]:
    return re.findall(r"^\S+ [TDBRV] (\S+)$", run("nm", compiled), re.MULTILINE)


def _replace(work: Path, target: Path) -> None:
    """Put what was built in place at once; a half of an earlier try is put aside first."""
    if target.exists() and not is_complete(target):
        shutil.rmtree(target)
    try:
        os.rename(work, target)
    except OSError:
        if not is_complete(target):  # else another process was faster
            raise
