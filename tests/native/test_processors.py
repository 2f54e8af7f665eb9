"""Processors with fewer instructions than the compiler was told of, emulated."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from he_infer import native

EMULATOR = shutil.which("qemu-x86_64")

if native.core is None:
    pytest.skip("the extension was not built", allow_module_level=True)
if EMULATOR is None:
    pytest.skip("qemu-x86_64 is not installed", allow_module_level=True)

# An illegal instruction anywhere kills the process: the paths, the seeds and a product each run.
CODE = """
import numpy as np
from he_infer import native
from he_infer.params import CKKSParams

params = CKKSParams.from_bits(4096, [36, 30], special_bits=38)
found = {}
for path in native.paths():
    engine = native.core.Engine(params.n, [*params.primes, params.special_prime], path)
    words = np.stack([engine.expand(bytes([s] * 64))[:2] for s in (1, 2)])
    a = engine.ciphertext(words)
    found[path] = engine.rescale(engine.multiply_plain(a, engine.plaintext(
        np.arange(params.n, dtype=np.int64), 1, False))).residues.tobytes()
assert len(set(found.values())) == 1
print(",".join(found))
"""


@pytest.mark.parametrize(
    ("processor", "paths"), [("Nehalem", "scalar"), ("Haswell", "avx2,scalar")]
)
def test_only_instructions_that_the_processor_has_are_run(processor: str, paths: str) -> None:
    assert EMULATOR is not None
    done = subprocess.run(
        [EMULATOR, "-cpu", processor, sys.executable, "-c", CODE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == paths
