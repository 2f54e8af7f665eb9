"""One thread for numpy and torch, so that a figure does not depend on the machine's cores.

Their sums come out in another order on other numbers of threads; and matrices as small as these
gain nothing from a second thread, which waits for the first by spinning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit both inside the block, as they were afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)
