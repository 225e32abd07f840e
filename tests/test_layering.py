"""Who may import whom: the order of design is the order of ``LAYERS``, lowest first."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "memplan"
# A module imports from layers before its own; within a layer, packages know nothing of each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("option_values",),
    ("lora_options", "tuner_options"),
    ("units", "dtypes", "registry", "results", "method_table", "peft_options"),
    ("vocabulary",),
    ("files", "checks", "categories"),
    ("values", "selectors"),
    ("quantized_bases",),
    ("combinations",),
    ("workload", "hardware"),
    ("coverage",),
    ("engine",),
    ("models", "methods", "quantization", "optimizers", "parallel"),
    ("loading",),
    ("training",),
    ("running", "attribution", "counting"),
    ("trade_offs",),
    ("allocator",),
    ("simulation",),
    ("estimate",),
    ("planner",),
    ("evidence", "importers"),
    ("engines",),
    ("report",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
HEAVY = (
    *("torch", "transformers", "peft", "accelerate", "bitsandbytes", "torchao", "hqq"),
    "liger_kernel",
    "adapters",
)
# Third-party packages, and the only places that may import them. numpy may be imported anywhere,
# but not by what a scalar estimate loads.
PLACES = {
    "numpy": set(RANK),
    "rich": {"report", "cli"},
    "typer": {"cli"},
    "matplotlib": {"report"},
    "yaml": {"files", "importers"},
    "tomli": {"files"},
    "tomllib": {"files"},
    **{name: {"evidence"} for name in HEAVY},
}
ONLY_WHEN_USED = {"yaml", "tomli", *HEAVY}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem in RANK)


def place(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Dotted names that run-time code imports, and whether at module level."""
    stack: list[tuple[ast.AST, bool]] = [(tree, True)]
    while stack:
        node, top = stack.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", top) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        top = top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        stack += [(child, top) for child in ast.iter_child_nodes(node)]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_from_layers_below_its_own(path: Path) -> None:
    own = place(path)
    for name, top in imported(ast.parse(path.read_text(encoding="utf-8"))):
        package, _, rest = name.partition(".")
        if package == "memplan":
            check_own(own, rest.split(".")[0])
        elif package in PLACES:
            assert own in PLACES[package], f"{package} has no place in {own}"
            assert not (top and package in ONLY_WHEN_USED), f"{package} is imported when used"
        else:
            assert package in sys.stdlib_module_names, f"{package} is no dependency"


def check_own(own: str, other: str) -> None:
    if other == "__version__" or other == own:
        return
    assert other in RANK, f"{other} has no layer; give it one"
    assert RANK[other] < RANK[own], f"{own} may not import {other}"


def test_every_module_has_a_layer() -> None:
    assert {place(path) for path in ROOT.rglob("*.py")} - {"__init__", "__main__"} <= set(RANK)


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_memplan_loads_nothing_heavy() -> None:
    heavy = {"numpy", "rich", "typer", "yaml", "torch", "transformers", "matplotlib"}
    assert not heavy & loaded_by("import memplan")


def test_scalar_estimate_loads_no_third_party_package() -> None:
    code = "import memplan; memplan.estimate(model='1b', method='lora', seq_len=64)"
    heavy = {"numpy", "rich", "typer", "yaml", "torch", "transformers", "matplotlib"}
    assert not heavy & loaded_by(code)


def test_command_line_estimate_loads_only_what_it_uses() -> None:
    code = (
        "import memplan.cli.app as app\n"
        "app.run(['estimate', '--model', '1b', '--seq-len', '64', '--json'])"
    )
    heavy = {"numpy", "rich", "typer", "yaml", "torch", "transformers", "matplotlib"}
    assert not heavy & loaded_by(code)
