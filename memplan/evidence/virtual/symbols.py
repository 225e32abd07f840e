"""What the libraries of torch import from the libraries of CUDA, by readelf and nm."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from memplan.errors import MissingError

# A symbol without a version node goes to the first library whose pattern begins its name.
PREFIXES = (
    (r"_*cuda", "cudart"),
    (r"cusparseLt", "cusparseLt"),
    (r"cusparse", "cusparse"),
    (r"cublasLt", "cublasLt"),
    (r"cublas", "cublas"),
    (r"cudnn", "cudnn"),
    (r"cusolver", "cusolver"),
    (r"cufft", "cufft"),
    (r"curand", "curand"),
    (r"cuFile", "cufile"),
    (r"cupti", "cupti"),
    (r"nccl", "nccl"),
    (r"nvrtc", "nvrtc"),
    (r"nvshmem", "nvshmem_host"),
    (r"nvml", "nvidia-ml"),
    (r"_*nvJitLink", "nvJitLink"),
    (r"cu[A-Z]", "cuda"),
)
STEMS = {stem for _, stem in PREFIXES}
# Opened by name at run time, so that nothing lists them as needed.
OPENED = {"cuda": "libcuda.so.1", "nvidia-ml": "libnvidia-ml.so.1"}
NEEDED = re.compile(r"\(NEEDED\).*\[(.+?)\]")
COMMON_NODES = ("GLIBC", "CXXABI", "GCC", "GOMP")


@dataclass(frozen=True, slots=True)
class Imports:
    """What is asked of one library of CUDA.

    Attributes:
        stem: Its name without ``lib`` and ``.so``.
        soname: Name that it is loaded by.
        symbols: Functions asked of it, sorted.
        node: Version node of its symbols, empty for none.
    """

    stem: str
    soname: str
    symbols: tuple[str, ...]
    node: str


def run(*command: str | Path) -> str:
    """Output of a program of the C tool chain.

    Raises:
        MissingError: It is not there, or fails.
    """
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise MissingError(
            f"{command[0]}: not found. The virtual GPU is built with gcc and binutils: install "
            "them (Debian, Ubuntu: apt install gcc libc6-dev binutils), then set it up again."
        ) from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().splitlines()[-1:] or ["no message"]
        raise MissingError(f"the virtual GPU cannot be built: {command[0]}: {reason[0]}") from None
    return done.stdout


def read_imports(libraries: Iterable[Path]) -> tuple[Imports, ...]:
    """What all of them together import of each library of CUDA, the runtime first."""
    sonames = dict(OPENED)
    symbols: dict[str, str] = {}
    for library in libraries:
        sonames |= parse_needed(run("readelf", "-d", library))
        listing = run("nm", "-D", "--undefined-only", "--with-symbol-versions", library)
        symbols |= parse_undefined(listing)
    stems = sorted(sonames, key=lambda stem: (stem != "cudart", stem))
    return tuple(_imports(stem, sonames[stem], symbols) for stem in stems)


def parse_needed(listing: str) -> dict[str, str]:
    """CUDA's libraries among those that ``readelf -d`` lists, by stem."""
    names = NEEDED.findall(listing)
    return {stem_of(name): name for name in names if stem_of(name) in STEMS}


def parse_undefined(listing: str) -> dict[str, str]:
    r"""Symbols of CUDA in the output of nm, with their version nodes.

    Example:
        >>> parse_undefined("  U cudaMalloc@libcudart.so.13\n  U free@GLIBC_2.2.5")
        {'cudaMalloc': 'libcudart.so.13'}
    """
    found: dict[str, str] = {}
    for line in listing.splitlines():
        name, _, node = (line.split() or [""])[-1].partition("@")
        node = node.lstrip("@")
        if not node.startswith(COMMON_NODES) and _stem_by_prefix(name):
            found[name] = node
    return found


def stem_of(soname: str) -> str:
    """``cudart`` of ``libcudart.so.13``."""
    return soname.removeprefix("lib").split(".so")[0]


def _stem_by_prefix(name: str) -> str:
    return next((stem for pattern, stem in PREFIXES if re.match(pattern, name)), "")


def _stem_of_symbol(name: str, node: str) -> str:
    return stem_of(node) if node.startswith("lib") else _stem_by_prefix(name)


def _imports(stem: str, soname: str, symbols: Mapping[str, str]) -> Imports:
    own: Sequence[str] = sorted(
        n for n, node in symbols.items() if _stem_of_symbol(n, node) == stem
    )
    node = next((symbols[name] for name in reversed(own) if symbols[name]), "")
    return Imports(stem, soname, tuple(own), node)
