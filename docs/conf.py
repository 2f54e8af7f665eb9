"""Sphinx: the documentation's pages, the reference of the Python API and of the command line.

``make docs`` builds ``docs/_build/html``. The pages load nothing from a network, so they can be
read from the file system.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from he_infer.version import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project: Final = "he-infer"
author: Final = "the he-infer contributors"
release: Final = __version__
version: Final = __version__

extensions: Final = ["myst_parser", "sphinx.ext.autodoc", "sphinxarg.ext"]
exclude_patterns: Final = ["_build", "_static", "notebooks", "measurements"]
myst_heading_anchors: Final = 3
smartquotes: Final = False  # it would turn the two dashes of an option into one

html_theme: Final = "furo"
html_title: Final = f"he-infer {__version__}"
html_copy_source: Final = False
html_show_copyright: Final = False
html_show_sphinx: Final = False
html_static_path: Final = ["_static"]
html_css_files: Final = ["site.css"]

# Docstrings write `name` for code; reStructuredText calls that the default role.
default_role: Final = "literal"
autodoc_member_order: Final = "bysource"
autodoc_preserve_defaults: Final = True
autodoc_type_aliases: Final = {"ArrayLike": "ArrayLike"}
python_maximum_signature_line_length: Final = 88

_CODE: Final = re.compile(r"(``.+?``|(?::\w+)?:?`[^`]+`)", re.DOTALL)
_LISTS: Final = ("- ", "* ", "..")


def plain_text(
    app: Sphinx, what: str, name: str, object_: object, options: object, lines: list[str]
) -> None:
    """Read a docstring as plain text with code in backticks.

    ``(B, *shape)``, ``|x|`` and ``name_`` are mathematics here and no markup. An indented block
    is a drawing or an example, so it becomes a literal block.
    """
    escaped = _CODE.split("\n".join(lines))
    for place in range(0, len(escaped), 2):
        escaped[place] = re.sub(r"\*(?=\S)|\||(?<=\w)_(?!\w)", r"\\\g<0>", escaped[place])
    text = "".join(escaped).split("\n")
    marked: list[str] = []
    paragraph = ""  # the last line that is not indented
    for line, original in zip(text, lines, strict=True):
        indented = original.startswith("  ")
        after_blank = not marked or not marked[-1].strip()
        listed = not paragraph or paragraph[:2] in _LISTS
        if indented and after_blank and not listed and not paragraph.endswith("::"):
            marked += ["::", ""]
            paragraph = "::"
        if original.strip() and not indented:
            paragraph = original
        marked.append(original if indented and paragraph.endswith("::") else line)
    lines[:] = marked


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", plain_text)
