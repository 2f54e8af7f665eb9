"""Notebooks run from top to bottom, and show what they claim."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from tests.paths import CHECKOUT

NOTEBOOKS = sorted((CHECKOUT / "docs" / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path) -> None:
    with warnings.catch_warnings():
        # Jupyter's own machinery warns on import and on start of the kernel.
        warnings.simplefilter("ignore")
        import nbclient
        import nbformat

        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        client = nbclient.NotebookClient(
            notebook,
            timeout=600,
            startup_timeout=300,
            resources={"metadata": {"path": str(path.parents[2])}},
        )
        client.execute()
    printed = "\n".join(
        output["text"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    )
    stolen = re.search(r"^encrypted +fidelity (\S+)", printed, re.M)
    assert stolen is not None and float(stolen[1]) > 0.99
