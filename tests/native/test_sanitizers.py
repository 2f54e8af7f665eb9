"""The extension under AddressSanitizer and UndefinedBehaviorSanitizer; takes minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import CHECKOUT

# Runs with the sanitized extension in place of the installed one.
RUN = """
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
path = sys.argv[1]
spec = spec_from_file_location("he_infer.native._core", path)
core = module_from_spec(spec)
sys.modules["he_infer.native._core"] = core
spec.loader.exec_module(core)
import he_infer.native
assert he_infer.native.core is core
import pytest
sys.exit(pytest.main(sys.argv[2:]))
"""


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def library(compiler: str, name: str) -> str:
    asked = [compiler, f"-print-file-name={name}"]
    path = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"the compiler has no {name}")
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="preloads the sanitizer as Linux does it")
@pytest.mark.timeout(3600)  # minutes on a machine of its own
def test_the_extensions_tests_are_clean(tmp_path: Path) -> None:
    pytest.importorskip("nanobind", reason="builds the extension again")
    cmake, compiler = tool("cmake"), tool("g++")
    preload = " ".join(library(compiler, name) for name in ("libasan.so", "libubsan.so"))
    configure = [cmake, "-S", str(CHECKOUT), "-B", str(tmp_path), "-DHE_INFER_SANITIZE=ON"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Debug"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run([cmake, "--build", str(tmp_path), "--parallel", "2"], check=True)
    (built,) = tmp_path.glob("_core*.so")
    environment = {
        **os.environ,
        "LD_PRELOAD": preload,
        # Python itself keeps memory until it ends.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }
    tests = ["tests/native/test_bits.py", "tests/native/test_refusals.py", "tests/runtime/backends"]
    chosen = ["-k", "native or 4096 or 8192 or malformed or plaintexts"]
    run = [sys.executable, "-c", RUN, str(built), "-q", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*run, *chosen, *tests], cwd=CHECKOUT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "ERROR: AddressSanitizer" not in done.stderr
