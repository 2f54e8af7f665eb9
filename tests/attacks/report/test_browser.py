"""The page in a real browser: it renders, logs nothing, asks for nothing, prints, turns dark."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

import pytest

from attacks.report import write_report
from tests.attacks.report.made_up import audit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium: install Debian's chromium package")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(audit(), path)
    return path


def browse(chromium: str, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One headless run with a profile of its own and a proxy that nobody listens on."""
    command = [
        chromium,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--proxy-server=127.0.0.1:9",
        *options,
    ]
    # A profile that a run before this one has not quite let go of would be refused.
    with tempfile.TemporaryDirectory(dir=page.parent, ignore_cleanup_errors=True) as profile:
        command += [f"--user-data-dir={profile}", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)


def pixels(path: Path) -> list[tuple[int, ...]]:
    """The first row's pixels of a PNG with 8-bit RGB or RGBA, decoded here: filters 0 and 1."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, compressed, channels, width = 8, b"", 0, 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, channels = int.from_bytes(body[:4], "big"), {2: 3, 6: 4}[body[9]]
        if kind == b"IDAT":
            compressed += body
        at += 12 + length
    raw = zlib.decompress(compressed)
    filter_kind, row = raw[0], bytearray(raw[1 : 1 + width * channels])
    if filter_kind in (1, 4):  # for the first row Paeth is the left neighbour too
        for i in range(channels, len(row)):
            row[i] = (row[i] + row[i - channels]) % 256
    else:
        assert filter_kind in (0, 2)  # nothing above the first row
    return [tuple(row[i : i + channels]) for i in range(0, len(row), channels)]


def test_it_renders_without_a_word_on_the_console(chromium: str, page: Path) -> None:
    done = browse(chromium, page, "--enable-logging=stderr", "--v=0", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert "A client can copy the model" in done.stdout
    assert done.stdout.count("<svg") == 2 + 10  # two charts, five keys in each legend


def test_it_asks_for_nothing(chromium: str, page: Path, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    browse(chromium, page, f"--log-net-log={log}", "--dump-dom")
    text = log.read_text(encoding="utf-8", errors="replace")
    # The browser itself may look for updates; the page must name no address but its own file.
    asked = [line for line in text.splitlines() if '"initiator":"file' in line]
    assert all("http" not in line for line in asked)


@pytest.mark.parametrize(("scheme", "is_dark"), [("0", True), ("1", False)])
def test_it_follows_the_colour_scheme(
    chromium: str, page: Path, tmp_path: Path, scheme: str, is_dark: bool
) -> None:
    shot = tmp_path / "shot.png"
    browse(
        chromium,
        page,
        f"--blink-settings=preferredColorScheme={scheme}",
        "--window-size=800,600",
        f"--screenshot={shot}",
    )
    brightness = [sum(pixel[:3]) / 3 for pixel in pixels(shot)]
    assert max(brightness) < 60 if is_dark else min(brightness) > 200


def test_it_prints(chromium: str, page: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    browse(chromium, page, "--no-pdf-header-footer", f"--print-to-pdf={target}")
    data = target.read_bytes()
    assert data.startswith(b"%PDF") and data.count(b"/Type /Page\n") >= 2
    if shutil.which("pdftotext"):
        text = subprocess.run(
            ["pdftotext", str(target), "-"], capture_output=True, text=True, check=True
        ).stdout
        for section in ("Findings", "Every attack on every twin", "How to repeat it"):
            assert section in text
