"""Fixtures that every test may use: where the full data sets are, if they are anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


def find_data_folder() -> Path | None:
    """HE_INFER_DATA when it is set, else the data folder beside the checkout, else nothing."""
    named = os.environ.get("HE_INFER_DATA")
    if named:
        return Path(named)
    beside = CHECKOUT.parent / "shared" / "data"
    return beside if beside.is_dir() else None


def pytest_configure() -> None:
    # Networks are small here: threads would wait for each other longer than they compute.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # The library and child processes look at the variable only; tests find the folder for them.
    folder = find_data_folder()
    if folder is not None:
        os.environ["HE_INFER_DATA"] = str(folder)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the full data sets; the test is skipped when there is none."""
    folder = find_data_folder()
    if folder is None or not folder.is_dir():
        pytest.skip("the full data sets are absent: set HE_INFER_DATA to their folder")
    return folder
