from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runtime.backends.harness import HARNESSES, Harness


@pytest.fixture(scope="module", params=HARNESSES)
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    yield HARNESSES[request.param]()
