"""The environment variables that worker processes inherit.

They get no secret that is not for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# One thread a process: forking beside a library's threads would copy held locks.
_THREADS: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_SECRET: Final = re.compile(
    r"HE_INFER_|PG[A-Z]|.*(DATABASE|TOKEN|PASSWORD|PASSPHRASE|SECRET|CREDENTIAL|API_?KEY)",
    re.IGNORECASE,
)
# What object stores are reached with; see the fsspec packages s3fs, gcsfs and adlfs.
_STORES: Final = re.compile(r"AWS_|GOOGLE_|GCP_|AZURE_|FSSPEC_", re.IGNORECASE)


def worker_environment(environment: Mapping[str, str], *, blobs_url: str) -> dict[str, str]:
    """The variables that workers get; those of an object store only where keys lie in one.

    An adversary who has taken a worker over finds no secrets in its environment. This is not a
    strong boundary, because a worker runs as the same user as the process that has them.
    """
    remote = "://" in blobs_url and not blobs_url.startswith(("file://", "memory://"))
    kept = {}
    for name, value in environment.items():
        of_store = _STORES.match(name) is not None
        if (remote and of_store) or not (of_store or _SECRET.match(name)):
            kept[name] = value
    return {**kept, **_THREADS}
