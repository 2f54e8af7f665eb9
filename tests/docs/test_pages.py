"""The pages link to what exists, quote commands that parse and name what can be imported."""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import he_infer
from he_infer.version import __version__
from tests.paths import CHECKOUT

DOCS = CHECKOUT / "docs"
PAGES = [
    *(CHECKOUT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.glob("*.md")),
]
REFERENCE = sorted((DOCS / "reference").glob("*.rst"))
MOST_WORDS = 750

_FENCE = re.compile(r"^```(\S*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^\.\. auto(?:class|function|module|data):: ([\w.]+)", re.MULTILINE)
_PARSER = re.compile(r"^ +:ref: (\S+)\n +:prog: (.+)$", re.MULTILINE)


def named(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


def prose(page: Path) -> str:
    """The page without its code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What GitHub and Sphinx call the headings of a page."""
    titles = _HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def shell_lines(page: Path) -> list[str]:
    """The commands of a page's console blocks, without prompts and comments."""
    blocks = [code for name, code in _FENCE.findall(page.read_text("utf-8")) if name == "console"]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line[2:].split(" #")[0].strip() for line in lines if line.startswith("$ ")]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_resolves(page: Path) -> None:
    missing = []
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            missing.append(target)
    assert not missing


def test_every_page_is_in_the_contents() -> None:
    contents = (DOCS / "index.md").read_text(encoding="utf-8").splitlines()
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    pages |= {f"reference/{page.stem}" for page in REFERENCE}
    assert pages - set(contents) == set()


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


@functools.cache
def documented_parsers() -> dict[str, argparse.ArgumentParser]:
    """The parsers that the reference is made from, by the command's name."""
    references = [page.read_text(encoding="utf-8") for page in REFERENCE]
    found = [match for text in references for match in _PARSER.findall(text)]
    return {program: attribute(name)() for name, program in found}


def test_the_reference_has_both_command_lines() -> None:
    assert documented_parsers().keys() == {"he-infer", "python -m benchmarks"}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_quoted_commands_parse(page: Path) -> None:
    parsers = documented_parsers()
    for line in shell_lines(page):
        command = re.sub(r"^(?:[A-Z_]+=\S+ )*", "", line)
        for name, parser in parsers.items():
            if command.startswith(f"{name} "):
                try:
                    parser.parse_args(shlex.split(command.removeprefix(name)))
                except SystemExit:
                    pytest.fail(f"{named(page)}: {line}")


def test_the_readme_quotes_commands() -> None:
    assert sum("he-infer" in line for line in shell_lines(CHECKOUT / "README.md")) >= 4


@pytest.mark.parametrize("page", REFERENCE, ids=named)
def test_names_of_the_reference_import(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in _DIRECTIVE.findall(text):
        assert attribute(name) is not None


def attribute(name: str) -> Any:
    """What a dotted name means: a module, or something in one."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, rest = name.rpartition(".")
        return getattr(importlib.import_module(module), rest)


def test_python_examples_name_what_is_public() -> None:
    for page in (CHECKOUT / "README.md", DOCS / "user-guide.md"):
        used = re.findall(r"\bhe_infer\.(\w+)\(", page.read_text(encoding="utf-8"))
        assert used and set(used) <= set(he_infer.__all__)


def test_the_version_has_a_dated_section() -> None:
    changelog = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.M)
