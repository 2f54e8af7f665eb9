"""Without a compiler the package builds all the same, only without the extension."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.paths import CHECKOUT

REPORT = """
import he_infer.native, sys
he_infer.native.core = None
from he_infer.runtime.backends.choose import encrypted_backend
from he_infer.params import CKKSParams
params = CKKSParams.from_bits(4096, [36, 30], special_bits=38)
print(type(encrypted_backend(params)).__name__, he_infer.native.paths())
"""


@pytest.mark.slow
@pytest.mark.parametrize("works", [True, False])
@pytest.mark.timeout(3600)  # minutes on a machine of its own
def test_a_wheel_with_and_without_a_compiler(works: bool, tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core", reason="builds the package again")
    environment = dict(os.environ)
    if not works:
        environment |= {"CC": "/bin/false", "CXX": "/bin/false"}
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    build += ["--config-settings", f"build-dir={tmp_path / 'build'}"]
    build += ["--wheel-dir", str(tmp_path), str(CHECKOUT)]
    done = subprocess.run(build, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("he_infer-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert (
        any(name.startswith("he_infer/native/_core.") and name.endswith(".so") for name in names)
        == works
    )
    assert "he_infer/native/__init__.py" in names
    assert not any(name.endswith((".cpp", ".hpp")) for name in names)


def test_seal_serves_where_the_extension_is_missing() -> None:
    run = [sys.executable, "-c", REPORT]
    done = subprocess.run(run, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SealBackend", "()"]
