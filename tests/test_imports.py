"""Imports go one way: from the folder that comes later in a query's life to those before it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.paths import CHECKOUT

PACKAGES = ("he_infer", "attacks", "benchmarks")

# A module imports from its own folder and from those before it. A folder that is missing here
# has no place yet.
ORDER = {
    "he_infer": (
        *("errors", "version", "params", "progress"),
        *("wire", "keys", "plan", "native"),
        *("datasets", "activations", "zoo"),
        *("frontend", "runtime", "compiler"),
        *("client", "server", "cli"),
    ),
    "attacks": (
        *("errors", "progress", "core", "training"),
        *("extraction", "membership", "evasion", "ciphertext", "defences", "poisoning"),
        *("systems", "oracles", "catalogue", "audit", "report", "cli"),
    ),
    "benchmarks": (
        *("record", "rows", "tables", "inference"),
        *("service", "leakage", "defences"),
    ),
}
# (importing module, imported module): why the order is not kept there.
EXCEPTIONS: dict[tuple[str, str], str] = {}
# Where attacks meet what they attack: the targets, the audit that builds them, the commands.
CROSSINGS = {"oracles", "audit", "cli"}

MOST_MODULES = 14
MOST_LINES = 400
MOST_BESIDE_FOLDERS = 5


def modules_of(package: str) -> dict[str, Path]:
    """Dotted name → path of every module of a package."""
    found = {}
    for path in sorted((CHECKOUT / package).rglob("*.py")):
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = {name: path for package in PACKAGES for name, path in modules_of(package).items()}


def imports_of(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Every imported name as (line, absolute dotted name): in functions and for typing too."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    home = name.split(".")
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


def module_of(name: str) -> str | None:
    """The module of this project that an imported name lies in, if it is one of ours."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in MODULES:
            return ".".join(parts[:length])
    return None


IMPORTS = {
    name: [(line, home) for line, what in imports_of(name, path) if (home := module_of(what))]
    for name, path in MODULES.items()
}


def wrong_imports(package: str, order: Sequence[str]) -> Iterator[str]:
    for name in modules_of(package):
        own = name.split(".")[1:2]
        if not own or own == ["__main__"]:
            continue  # what the package shows to the world, and its command
        for line, home in IMPORTS[name]:
            there = home.split(".")[1:2]
            if not home.startswith(f"{package}.") or there == own or (name, home) in EXCEPTIONS:
                continue
            if order.index(there[0]) > order.index(own[0]):
                yield f"{name}:{line} imports {home}: {there[0]} comes after {own[0]}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_has_a_place_in_the_order(package: str) -> None:
    names = {name.split(".")[1] for name in modules_of(package) if "." in name}
    assert names - {"__main__"} == set(ORDER[package])


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_import_from_those_before_them(package: str) -> None:
    wrong = list(wrong_imports(package, ORDER[package]))
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_still_one() -> None:
    pairs = {(name, home) for name, found in IMPORTS.items() for _, home in found}
    assert EXCEPTIONS.keys() <= pairs


def test_packages_import_inwards_only() -> None:
    wrong = [
        f"{name}:{line} imports {what}"
        for name, path in MODULES.items()
        for line, what in imports_of(name, path)
        if what.split(".")[0] in (*PACKAGES[PACKAGES.index(name.split(".")[0]) + 1 :], "tests")
    ]
    assert not wrong, "\n".join(wrong)


def test_attack_algorithms_never_see_he_infer() -> None:
    wrong = [
        f"{name}:{line} imports {home}"
        for name in modules_of("attacks")
        if CROSSINGS.isdisjoint(name.split("."))
        for line, home in IMPORTS[name]
        if home.split(".")[0] == "he_infer"
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    # `import he_infer.wire.frames` runs he_infer/wire/__init__ first; a folder that gathers its
    # own modules' names there is no circle, so a package counts only where it is named.
    graph = {name: {home for _, home in found if home != name} for name, found in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_folders_and_files_stay_small() -> None:
    wrong = []
    for folder in {path.parent for path in MODULES.values()} | {
        path.parent for path in (CHECKOUT / "tests").rglob("*.py")
    }:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        most = MOST_BESIDE_FOLDERS if folder.name == "he_infer" else MOST_MODULES
        if len(modules) > most:
            wrong.append(f"{folder.relative_to(CHECKOUT)} has {len(modules)} modules of {most}")
        for path in modules:
            lines = path.read_text(encoding="utf-8").count("\n")
            if lines > MOST_LINES:
                wrong.append(f"{path.relative_to(CHECKOUT)} has {lines} lines of {MOST_LINES}")
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
    # would hide that function.
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
