"""Plan files: they round-trip, their digest names every bit, damage is refused; golden dumps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from torch import Tensor, nn

from he_infer import native, zoo
from he_infer.activations.layer import PolynomialActivation
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.errors import FileFormatError, HEInferError, VersionError
from he_infer.params import CKKSParams
from he_infer.plan import ir
from he_infer.plan.canonical import checksum
from he_infer.plan.file import load_plan, save_plan
from he_infer.plan.plan import Plan, encoded_bytes
from he_infer.plan.steps import AffineStep
from he_infer.runtime.backends.native import NativeBackend
from he_infer.runtime.backends.plain import PlainBackend
from he_infer.runtime.describe import describe
from he_infer.runtime.executor import EncodedWeights, run_on
from he_infer.runtime.kernels import Machine, linear_map

GOLDEN = Path(__file__).parent / "golden"
UPDATE = "HE_INFER_UPDATE_GOLDEN"


class SmallCNN(nn.Module):
    """Weights from a formula, so that the golden dump depends on no random generator."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, stride=2, padding=1)
        self.act1 = PolynomialActivation.quadratic(3)
        self.skip = nn.Conv2d(3, 3, 3, padding=1)
        self.act2 = PolynomialActivation(torch.tensor([[0.1, 0.5, 0.2, -0.1]]))
        self.head = nn.Linear(48, 4)
        with torch.no_grad():
            for k, weight in enumerate(self.parameters()):
                if weight.requires_grad:
                    steps = torch.arange(weight.numel(), dtype=torch.float32)
                    weight.copy_(0.3 * torch.cos(steps * (k + 1) + 1).reshape(weight.shape))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.conv(x))
        x = self.act2(x + self.skip(x))
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


def small_sample() -> ir.FloatArray:
    steps = np.arange(20 * 64, dtype=np.float64)
    return (0.5 + 0.5 * np.sin(steps * steps)).reshape(20, 1, 8, 8)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_model(SmallCNN().double(), small_sample(), name="small-cnn")


@pytest.fixture(scope="module")
def saved(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "small.heplan"
    save_plan(plan, path)
    return path


def answers(plan: Plan, records: ir.FloatArray) -> ir.FloatArray:
    backend, spec = PlainBackend(plan.params, steps=plan.rotation_steps), plan.client_spec
    found = []
    for record in records:
        inputs = [backend.encrypt(s, scale=plan.scale) for s in spec.pack(record[None])]
        slots = np.stack([backend.decrypt(c).real for c in run_on(backend, plan, inputs)])
        found.append(spec.unpack(slots, 1)[0])
    return np.array(found)


# -- round trip ----------------------------------------------------------------------------


def test_a_saved_plan_is_the_same_plan(plan: Plan, saved: Path) -> None:
    again = load_plan(saved)
    assert again.digest == plan.digest
    assert describe(again) == describe(plan)
    assert again.client_spec.to_json() == plan.client_spec.to_json()
    records = small_sample()[:2]
    np.testing.assert_array_equal(answers(again, records), answers(plan, records))
    with torch.no_grad():
        expected = SmallCNN().double()(torch.from_numpy(records)).numpy()
    np.testing.assert_allclose(answers(again, records), expected, atol=1e-9)


def test_saving_is_canonical_and_leaves_no_other_file(plan: Plan, saved: Path) -> None:
    again = saved.parent / "folder" / "again.heplan"
    save_plan(load_plan(saved), again)
    assert again.read_bytes() == saved.read_bytes()
    assert [p.name for p in again.parent.iterdir()] == ["again.heplan"]


def test_compiling_twice_gives_the_same_digest(plan: Plan) -> None:
    again = compile_model(SmallCNN().double(), small_sample(), name="small-cnn")
    assert again.digest == plan.digest


def test_the_digest_covers_every_weight(plan: Plan) -> None:
    seen = {plan.digest}
    changed = 0
    for i, node in enumerate(plan.graph.nodes):
        variants: list[ir.Node] = []
        if isinstance(node, ir.Affine):
            variants.append(replace(node, bias=nudged(node.bias)))
            for k, matrix in enumerate(node.matrices):
                other = matrix.copy()
                other.data = nudged(other.data)
                matrices = (*node.matrices[:k], other, *node.matrices[k + 1 :])
                variants.append(replace(node, matrices=matrices))
        if isinstance(node, ir.Polynomial):
            variants.append(replace(node, coefficients=nudged(node.coefficients)))
        for variant in variants:
            nodes = (*plan.graph.nodes[:i], variant, *plan.graph.nodes[i + 1 :])
            seen.add(replace(plan, graph=ir.Graph(nodes=nodes)).digest)
            changed += 1
    assert changed >= 6 and len(seen) == changed + 1


def nudged(values: ir.FloatArray) -> ir.FloatArray:
    """The last value moved by one unit in the last place."""
    found = values.copy()
    found.reshape(-1)[-1] = np.nextafter(found.reshape(-1)[-1], np.inf)
    return found


def test_the_digest_covers_name_scale_batch_and_laziness(plan: Plan) -> None:
    variants = [
        replace(plan, name="other"),
        replace(plan, scale=plan.scale * 2),
        replace(plan, output_scale=plan.output_scale / 2),
        replace(plan, batch=2),
        replace(plan, lazy=not plan.lazy),
        replace(plan, params=CKKSParams.from_bits(8192, [40, 30, 30], special_bits=41)),
    ]
    assert len({plan.digest, *(variant.digest for variant in variants)}) == 7


# -- damage --------------------------------------------------------------------------------


def load_bytes(data: bytes, folder: Path) -> Plan:
    path = folder / "damaged.heplan"
    path.write_bytes(data)
    return load_plan(path)


def with_header(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The same tensors under an edited header."""
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    header = json.loads(metadata["he_infer"])
    change(header)
    return save(load(data), metadata={**metadata, "he_infer": json.dumps(header)})


@pytest.mark.parametrize("version", [0, 1, "2", 4, None])
def test_another_format_version(saved: Path, tmp_path: Path, version: object) -> None:
    data = with_header(saved.read_bytes(), lambda header: header.update(version=version))
    with pytest.raises(VersionError, match="compile the model again"):
        load_bytes(data, tmp_path)


CHANGES: list[dict[str, object]] = [
    {"graph": {"kind": "Graph", "nodes": []}},
    {"graph": None},
    {"graph": {"kind": "Graph", "nodes": [{"kind": "Activation", "name": "f"}]}},
    {"packing": {}},
    {"packing": {"kind": "Packing", "layouts": []}},
    {"params": {"kind": "CKKSParams", "n": 8192}},
    {"kind": "Packing"},
    {"scale": "large"},
    {"lazy": 1},
    {"batch": True},
    {"input_range": [0.0]},
    {"more": 1},
]


@pytest.mark.parametrize("change", [*CHANGES, {"batch": 2}, {"name": "renamed"}], ids=str)
def test_an_edited_header(saved: Path, tmp_path: Path, change: dict[str, object]) -> None:
    data = with_header(saved.read_bytes(), lambda header: header["plan"].update(change))
    with pytest.raises(FileFormatError):
        load_bytes(data, tmp_path)


def test_another_format(saved: Path, tmp_path: Path) -> None:
    data = with_header(saved.read_bytes(), lambda header: header.update(format="something else"))
    with pytest.raises(FileFormatError, match="not a plan file"):
        load_bytes(data, tmp_path)


def with_checksum(data: bytes, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """Edited contents under a correct checksum."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["he_infer"])
    tensors = load(data)
    del header["sha256"]
    change(header["plan"], tensors)
    header["sha256"] = checksum(header, tensors)
    return save(tensors, metadata={"he_infer": json.dumps(header)})


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_contradictions_under_a_correct_checksum(
    saved: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    data = with_checksum(saved.read_bytes(), lambda plan, _: plan.update(change))
    with pytest.raises(FileFormatError, match="compile the model again"):
        load_bytes(data, tmp_path)


def test_what_a_plan_is_made_of_is_all_there(saved: Path, tmp_path: Path) -> None:
    """A layout, a choice or an array that is missing, or an array of another type."""

    def without(part: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
        return lambda plan, _: plan["packing"][part].pop()

    def single(_: dict[str, Any], tensors: dict[str, Any]) -> None:
        name = next(name for name in tensors if name.endswith("bias"))
        tensors[name] = tensors[name].astype(np.float32)

    changes = [
        without("layouts"),
        without("choices"),
        lambda _, tensors: tensors.pop(next(iter(tensors))),
        single,
    ]
    for change in changes:
        with pytest.raises(FileFormatError, match="compile the model again"):
            load_bytes(with_checksum(saved.read_bytes(), change), tmp_path)


def test_files_that_are_no_plans(tmp_path: Path) -> None:
    array = {"x": np.zeros(3)}
    for data in (
        b"",
        b"PK\x03\x04 not a plan",
        os.urandom(4096),
        save(array),
        save(array, metadata={"he_infer": "[]"}),
        save(array, metadata={"he_infer": "3"}),
        save(array, metadata={"he_infer": "{"}),
        save(array, metadata={"he_infer": "[" * 100_000}),
        b"\xff" * 8 + b"{}",
    ):
        with pytest.raises(FileFormatError):
            load_bytes(data, tmp_path)
    with pytest.raises(FileFormatError, match="no plan file"):
        load_plan(tmp_path / "absent.heplan")
    with pytest.raises(FileFormatError):
        load_plan(tmp_path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_files(saved: Path, tmp_path: Path, share: float) -> None:
    data = saved.read_bytes()
    with pytest.raises(FileFormatError):
        load_bytes(data[: int(share * len(data))], tmp_path)


def test_trailing_bytes(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError):
        load_bytes(saved.read_bytes() + b"\0", tmp_path)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(in_header=st.booleans(), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_flipped_bits(
    plan: Plan, saved: Path, tmp_path: Path, in_header: bool, where: float, bit: int
) -> None:
    """A file with a flipped bit is refused, wherever it is; weights are no exception."""
    data = bytearray(saved.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    at = int(where * start) if in_header else start + int(where * (len(data) - start))
    data[at] ^= 1 << bit
    try:
        loaded = load_bytes(bytes(data), tmp_path)
    except HEInferError as error:
        # A flip in the version's digit gives another version.
        assert isinstance(error, FileFormatError | VersionError)
    else:
        # Padding between the header's tokens means nothing.
        assert in_header and loaded.digest == plan.digest


# -- what a plan says of itself ------------------------------------------------------------


def digits() -> Plan:
    sample = zoo.sample("digits-mlp", 200)
    return compile_model(zoo.load("digits-mlp"), sample, name="digits-mlp")


def small() -> Plan:
    return compile_model(SmallCNN().double(), small_sample(), name="small-cnn")


def small_batch() -> Plan:
    return compile_model(SmallCNN().double(), small_sample(), name="small-cnn-64", batch=64)


@pytest.mark.parametrize("build", [digits, small, small_batch], ids=lambda f: f.__name__)
def test_descriptions_are_as_recorded(build: Callable[[], Plan]) -> None:
    """Set HE_INFER_UPDATE_GOLDEN=1 to record them again, and read the diff."""
    plan = build()
    text = describe(plan)
    path = GOLDEN / f"{plan.name}.txt"
    if os.environ.get(UPDATE) == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_memory_of_the_encoded_weights(plan: Plan) -> None:
    words = sum(
        len(part.terms) * (step.level + 1) * plan.params.n
        for step in plan.steps
        if isinstance(step, AffineStep)
        for part in step.parts
    )
    assert encoded_bytes(plan, packed=False) == words * 8


def test_memory_of_packed_weights_is_what_the_evaluator_takes() -> None:
    """Up to the few bytes behind each plaintext that a wide read may touch."""
    if native.core is None:
        pytest.skip("the extension was not built")
    for model in (SmallCNN().double(), zoo.load("digits-mlp")):
        sample = small_sample() if isinstance(model, SmallCNN) else zoo.sample("digits-mlp", 64)
        plan = compile_model(model, sample)
        backend = NativeBackend(plan.params)
        taken = plaintexts = 0
        encode = backend._encode

        def counted(*args: Any, encode: Any = encode, **options: Any) -> Any:
            nonlocal taken, plaintexts
            handle = encode(*args, **options)
            taken, plaintexts = taken + handle.nbytes, plaintexts + 1
            return handle

        backend._encode = counted  # type: ignore[method-assign]
        for step in plan.steps:
            if isinstance(step, AffineStep):
                weights = EncodedWeights(backend)
                machine = Machine(backend=backend, plaintexts=weights, batch=plan.batch)
                for part in step.parts:
                    backend.prepare(linear_map(machine, part, step.level, 2.0**20))
        assert taken - 64 * plaintexts == encoded_bytes(plan)
