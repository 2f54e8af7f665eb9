"""What is deployed: the image's steps, the unit's sandbox, and options that the command has."""

from __future__ import annotations

import configparser
import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath

import pytest

from he_infer.cli.main import build_parser
from tests.paths import CHECKOUT
from tests.server.fakes import FakeHost, application, close

DEPLOY = CHECKOUT / "he_infer" / "deploy"
STATE = "/var/lib/he-infer"
TOOL_TIMEOUT_S = 300  # guards against waiting for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One instruction of the Containerfile, in the stage it belongs to (0 is before any)."""

    stage: int
    name: str
    arguments: str


def steps() -> list[Step]:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found, stage = [], 0
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, arguments = line.strip().partition(" ")
            stage += name == "FROM"
            found.append(Step(stage=stage, name=name, arguments=" ".join(arguments.split())))
    return found


def arguments_of(name: str, *, stage: int) -> list[str]:
    return [s.arguments for s in steps() if s.name == name and s.stage == stage]


def serve_options(arguments: list[str]) -> dict[str, object]:
    """What ``he-infer serve`` makes of a command line; fails if it has no such option."""
    return vars(build_parser().parse_args(arguments))


def section(text: str, name: str) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes="#")
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(text)
    return parser[name]


@pytest.fixture(scope="module")
def unit() -> str:
    return (DEPLOY / "he-infer.service").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    text = (DEPLOY / "he-infer.env.example").read_text(encoding="utf-8")
    return dict(section("[env]\n" + text, "env"))


def test_there_is_a_stage_to_build_and_one_to_run() -> None:
    bases = [s.arguments for s in steps() if s.name == "FROM"]
    assert [base.split()[1:] for base in bases] == [["AS", "build"], ["AS", "runtime"]]
    assert arguments_of("ARG", stage=0) == ["PYTHON_IMAGE=docker.io/library/python:3.11-slim"]
    assert {base.split()[0] for base in bases} == {"${PYTHON_IMAGE}"}
    installs = " ".join(arguments_of("RUN", stage=2))
    assert "apt-get" not in installs and "pip" not in installs  # nothing is fetched at the end


def test_what_is_copied_exists() -> None:
    sources = []
    for copied in arguments_of("COPY", stage=1):
        *found, target = copied.split()
        sources += found
        assert len(found) == 1 or target.endswith("/")
    assert all((CHECKOUT / source).exists() for source in sources), sources
    built_from = {"pyproject.toml", "CMakeLists.txt", "constraints.txt", "he_infer", "attacks"}
    assert built_from <= set(sources)
    # Everything that pyproject.toml names as a file of the package is there when it is built.
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(r'"(\w+\.md|LICENSE|NOTICE)"', project)
    assert named and set(named) <= set(sources)
    for copied in arguments_of("COPY", stage=2):
        assert copied.startswith("--from=build ")


def test_torch_is_the_pinned_one_for_processors() -> None:
    pins = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").split()
    assert [pin for pin in pins if pin.startswith("torch==")]
    torch_steps = [run for run in arguments_of("RUN", stage=1) if run.endswith(" torch")]
    assert len(torch_steps) == 1
    assert "--constraint constraints.txt" in torch_steps[0] and "--no-deps" in torch_steps[0]
    assert arguments_of("ARG", stage=1) == ["TORCH_INDEX=https://download.pytorch.org/whl/cpu"]


def test_it_runs_as_a_fixed_user_who_is_not_root() -> None:
    (user,) = arguments_of("USER", stage=2)
    uid, gid = (int(number) for number in user.split(":"))
    assert min(uid, gid) >= 10_000
    made = " ".join(arguments_of("RUN", stage=2))
    assert f"--uid {uid}" in made and f"--owner {uid}" in made and f"--gid {gid}" in made
    last = [s.name for s in steps() if s.stage == 2]
    assert last.index("USER") < last.index("ENTRYPOINT") and "RUN" not in last[last.index("USER") :]


def test_the_entry_point_is_a_command_line_of_serve() -> None:
    (entry,) = arguments_of("ENTRYPOINT", stage=2)
    command = json.loads(entry)
    options = serve_options([*command[1:], "/plans/model.heplan"])
    assert PurePosixPath(command[0]) == PurePosixPath("/opt/he-infer/bin/he-infer")
    assert options["state"] == Path(STATE) and arguments_of("VOLUME", stage=2) == [STATE]
    assert str(options["port"]) == "8000" and arguments_of("EXPOSE", stage=2) == ["8000"]
    assert options["host"] == "0.0.0.0"
    again = serve_options([*command[1:], "/plans/a.heplan", "--port", "9000", "--workers", "4"])
    assert (again["port"], again["workers"]) == (9000, 4)


@contextlib.contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """A server that answers everything with ``status``: its port and the paths it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_the_service(status: int, healthy: bool) -> None:
    (check,) = arguments_of("HEALTHCHECK", stage=2)
    command = json.loads(check.partition(" CMD ")[2])
    assert command[0] == "/opt/he-infer/bin/python" and "127.0.0.1:8000" in command[2]
    with answering(status) as (port, asked):
        code = command[2].replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        done = subprocess.run(
            [sys.executable, *command[1:2], code], capture_output=True, timeout=TOOL_TIMEOUT_S
        )
    assert asked == ["/v2/health/live"] and (done.returncode == 0) == healthy
    app = application(FakeHost())
    close(app)
    assert ("GET", asked[0]) in {(o.method, o.path) for o in app.operations}


def test_the_unit_starts_serve(unit: str, environment: dict[str, str]) -> None:
    service = section(unit, "Service")
    assert service["EnvironmentFile"] == "/etc/he-infer/he-infer.env"  # without -, so required
    default = service["Environment"].partition("=")
    values = {default[0]: default[2], **environment}
    line = re.sub(r"\$\{?([A-Z]+)\}?", lambda m: values[m[1]], service["ExecStart"])
    words = shlex.split(line)
    options = serve_options(words[1:])
    assert words[0] == "/opt/he-infer/bin/he-infer"
    assert options["state"] == Path(STATE) == Path("/var/lib", service["StateDirectory"])
    assert options["plans"] == [Path(plan) for plan in environment["PLANS"].split()]
    assert not re.search(r"[*?\[]", line)  # systemd would pass patterns on as they are
    used = set(re.findall(r"\$\{?([A-Z]+)", service["ExecStart"]))
    assert used == values.keys()
    # What comes as a list has to be split at spaces, which braces prevent.
    assert all(f"${name}" in service["ExecStart"].split() for name in ("PLANS", "OPTIONS", "TLS"))


def test_examples_in_comments_are_options_too(unit: str, environment: dict[str, str]) -> None:
    example = (DEPLOY / "he-infer.env.example").read_text(encoding="utf-8")
    containers = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    known = set(serve_options(["serve", "model.heplan"]))
    named = re.findall(r"#\s+(--.*)", example)
    named += re.findall(r"TLS=(--[^\"]+)", unit)
    named += re.findall(r"--certificate and --private-key", containers)  # in its head
    assert len(named) == 3
    for option in re.findall(r"--([a-z-]+)", " ".join(named)):
        assert option.replace("-", "_") in known, option


def test_the_unit_is_confined(unit: str) -> None:
    service = section(unit, "Service")
    yes = (
        *("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices"),
        *("ProtectKernelModules", "ProtectKernelTunables", "ProtectControlGroups"),
        *("RestrictNamespaces", "RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute"),
    )
    assert [name for name in yes if service.get(name) != "yes"] == []
    assert service["ProtectSystem"] == "strict" and service["CapabilityBoundingSet"] == ""
    assert (service["UMask"], service["LimitCORE"], service["MemorySwapMax"]) == ("0077", "0", "0")
    filters = re.findall(r"^SystemCallFilter=(.*)$", unit, flags=re.MULTILINE)
    assert filters == ["@system-service", "~@privileged"]
    assert {"MemoryMax", "CPUQuota", "LimitNOFILE", "TasksMax"} <= set(service)


def test_the_unit_gives_draining_its_time(unit: str) -> None:
    from he_infer.server import Settings

    service, settings = section(unit, "Service"), Settings()
    assert (service["KillSignal"], service["Restart"]) == ("SIGTERM", "on-failure")
    # Workers must not get the signal: they would end before what is in flight.
    assert service["KillMode"] == "mixed"
    drain_s = settings.drain_notice_s + settings.drain_timeout_s
    assert float(service["TimeoutStopSec"]) > drain_s + 10  # and ten for the workers to leave
    assert int(service["LimitNOFILE"]) > 2 * settings.connections


def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed")
    return found


def copy_of(unit: str, folder: Path) -> Path:
    """The unit with a command that exists here, which is looked for."""
    copy = folder / "he-infer.service"
    copy.write_text(unit.replace("/opt/he-infer/bin/he-infer", sys.executable), encoding="utf-8")
    return copy


def test_systemd_accepts_the_unit(unit: str, tmp_path: Path) -> None:
    tool, copy = systemd_analyze(), copy_of(unit, tmp_path)
    done = subprocess.run(
        [tool, "verify", str(copy)], capture_output=True, text=True, timeout=TOOL_TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    assert "he-infer.service" not in done.stderr  # unknown settings are warnings


def test_systemd_finds_little_exposed(tmp_path: Path, unit: str) -> None:
    tool, copy = systemd_analyze(), copy_of(unit, tmp_path)
    done = subprocess.run(
        [tool, "security", "--offline=yes", "--no-pager", str(copy)],
        capture_output=True,
        text=True,
        timeout=TOOL_TIMEOUT_S,
    )
    level = re.search(r"exposure level for he-infer\.service: ([0-9.]+)", done.stdout)
    if level is None:
        pytest.skip(f"this systemd-analyze has no offline security check: {done.stderr[:200]}")
    assert float(level[1]) <= 2.0, done.stdout


def container_tool() -> str:
    for name in ("podman", "docker"):
        found = shutil.which(name)
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            if found is not None:
                subprocess.run(
                    [found, "info"], capture_output=True, check=True, timeout=TOOL_TIMEOUT_S
                )
                return found
    pytest.skip("neither podman nor docker answers `info`: nothing here can build an image")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_image_builds_and_serves_as_its_user() -> None:
    tool = container_tool()
    image = "localhost/he-infer:test"
    file = str(DEPLOY / "Containerfile")
    extra = ["--format", "docker"] if Path(tool).name == "podman" else []
    subprocess.run([tool, "build", *extra, "--file", file, "--tag", image, CHECKOUT], check=True)

    def run(*command: str) -> str:
        entry, *rest = command
        done = subprocess.run(
            [tool, "run", "--rm", "--read-only", "--entrypoint", entry, image, *rest],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert run("id", "-u").strip() == "10001"
    assert "PLAN" in run("he-infer", "serve", "--help")
    code = "from he_infer import native; import torch; print(native.paths(), torch.version.cuda)"
    assert run("python", "-c", code).strip().endswith(" None")
    assert "g++" not in run("sh", "-c", "ls /usr/bin")
