"""What holds for every test: the same examples every time, and where the full data sets are."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.paths import CHECKOUT

# Whether a test passes must depend neither on how busy the machine is nor on whether CI is set,
# which chooses another profile: no limits on time, and the same examples in every run.
settings.register_profile(
    "he_infer",
    settings.default,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("he_infer")


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


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """`serve`, run within a test, sends the service's log to that test's standard error."""
    loggers = [logging.getLogger(name) for name in ("he_infer.server", "uvicorn.error")]
    before = [(one, one.handlers, one.level, one.propagate) for one in loggers]
    yield
    for one, handlers, level, propagate in before:
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the full data sets; the test is skipped when there is none."""
    folder = find_data_folder()
    if folder is None or not folder.is_dir():
        pytest.skip("the full data sets are absent: set HE_INFER_DATA to their folder")
    return folder
