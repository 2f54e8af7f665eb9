"""Imports go one way: benchmarks → attacks → he_infer, and inside he_infer from edge to core."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGES_OUTSIDE_IN = ("benchmarks", "attacks", "he_infer")

# A module may import from the rows above its own, and from its own unit: its package, or the
# modules that PARTS counts as one with it. A module that is missing here has no place yet.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "version"),
    ("params", "progress", "inference_protocol"),
    ("costs", "idx", "activations", "approx", "wire", "store", "privacy", "release"),
    ("client_spec", "datasets", "ir", "layout", "evaluation_keys", "keyfile", "torch_ops"),
    ("native", "sampling"),
    ("calibrate", "encoding", "im2col", "levels", "seal_bytes", "trace", "trace_sklearn"),
    ("polynomialize", "keys"),
    ("passes", "packing", "zoo", "comparison", "backends"),
    ("planner", "kernels"),
    ("plan",),
    ("compiler",),
    (
        "batching",
        "calibration",
        "report",
        "transport",
        "server",
        "certificates",
        "certificate_files",
        "canaries",
    ),
    ("client", "doctor"),
    ("demo",),
    ("cli",),
)
PARTS = {
    "elementwise": "trace",
    "plan_file": "plan",
    "describe": "plan",
    "executor": "plan",
    "replies": "plan",
    "client_messages": "client",
    "client_keys": "client",
    "client_async": "client",
    "canaries": "client",
    "transport_failures": "transport",
    "certificate_files": "certificates",
    "demo_picture": "demo",
}
LAYER_OF = {name: depth for depth, row in enumerate(LAYERS) for name in row}
LAYER_OF |= {part: LAYER_OF[whole] for part, whole in PARTS.items()}


def unit_of(module: str) -> str:
    return PARTS.get(module, module)


def modules_of(package: str) -> list[Path]:
    return sorted((CHECKOUT / package).rglob("*.py"))


def dotted_name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every imported name as (line, absolute dotted name), function-level imports included."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    home = dotted_name(path).split(".")
    package = home if path.name == "__init__.py" else home[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *base.split(".")])
            for alias in node.names:
                yield node.lineno, f"{base.rstrip('.')}.{alias.name}"


def test_packages_import_inwards_only() -> None:
    wrong = []
    for depth, package in enumerate(PACKAGES_OUTSIDE_IN):
        outer = PACKAGES_OUTSIDE_IN[:depth]
        for path in modules_of(package):
            for line, name in imports_of(path):
                if name.split(".")[0] in (*outer, "tests"):
                    wrong.append(f"{path.relative_to(CHECKOUT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


# Where attacks meet what they attack: the targets, the audit that builds them, the commands.
CROSSINGS = {"oracles", "audit", "cli"}


def test_attack_algorithms_never_see_he_infer() -> None:
    wrong = [
        f"{path.relative_to(CHECKOUT)}:{line} imports {name}"
        for path in modules_of("attacks")
        if CROSSINGS.isdisjoint(path.relative_to(CHECKOUT / "attacks").parts)
        for line, name in imports_of(path)
        if name.split(".")[0] == "he_infer"
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_has_a_layer() -> None:
    names = {path.relative_to(CHECKOUT / "he_infer").parts[0] for path in modules_of("he_infer")}
    placed = {name.removesuffix(".py") for name in names} - {"__init__", "__main__"}
    assert placed - LAYER_OF.keys() == set()


def test_layers_inside_he_infer_point_inwards() -> None:
    wrong = []
    for path in modules_of("he_infer"):
        own = path.relative_to(CHECKOUT / "he_infer").parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        for line, name in imports_of(path):
            parts = name.split(".")
            if parts[0] != "he_infer":
                continue
            if len(parts) > 1 and unit_of(parts[1]) == unit_of(own):
                continue
            where = f"{path.relative_to(CHECKOUT)}:{line} imports {name}"
            if len(parts) < 2 or parts[1] not in LAYER_OF:
                wrong.append(f"{where}: import from the module that defines it")
            elif LAYER_OF[parts[1]] >= LAYER_OF[own]:
                wrong.append(f"{where}: {parts[1]} is not below {own}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("statement", ["import he_infer", "import he_infer; he_infer.CKKSParams"])
def test_importing_the_package_loads_no_framework(statement: str) -> None:
    heavy = ("torch", "starlette", "uvicorn", "httpx", "tenseal", "sklearn", "scipy")
    code = f"import sys\n{statement}\nprint([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    assert done.stdout.strip() == "[]"


def test_public_names_survive_the_import_of_their_modules() -> None:
    # A submodule is bound on its package when it is imported; one named like a public function
    # would hide that function. Hence compiler.py, and this test.
    code = (
        "import importlib, he_infer\n"
        "for home in sorted(set(he_infer._HOMES.values())): importlib.import_module(home)\n"
        "assert all(callable(getattr(he_infer, name)) for name in he_infer._HOMES)\n"
        "assert he_infer.errors.HEInferError and set(dir(he_infer)) == set(he_infer.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    import he_infer

    with pytest.raises(AttributeError, match="no attribute 'compiel'"):
        he_infer.compiel  # noqa: B018
