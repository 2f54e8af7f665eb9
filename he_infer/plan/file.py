"""Plan files: a safetensors container with a JSON header; canonical, so that its hash is a name.

The file is trusted input of the party that serves the model, but it is still read strictly:
version, types and shapes are checked, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from he_infer.compiler.planner import Choice, InputPacking, Packing
from he_infer.errors import FileFormatError, HEInferError, VersionError
from he_infer.params import CKKSParams
from he_infer.plan import ir
from he_infer.plan.layout import Grid, Layout
from he_infer.plan.packing import Split
from he_infer.plan.plan import Plan
from he_infer.plan.privacy import FunctionPrivacy

FORMAT: Final = "he-infer plan"
VERSION: Final = 4
_KEY: Final = "he_infer"
_SUM: Final = "sha256"

Tensors = dict[str, NDArray[Any]]


def digest_of(plan: Plan) -> str:
    """SHA-256 over the header and every tensor, in a fixed order."""
    return _checksum(*_encode(plan))


def _checksum(header: dict[str, Any], tensors: Tensors) -> str:
    sha = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        sha.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def save_plan(plan: Plan, path: str) -> None:
    """Write atomically: a reader sees the old file or the whole new one."""
    from safetensors.numpy import save

    header, tensors = _encode(plan)
    data = save(
        {name: np.ascontiguousarray(t) for name, t in tensors.items()},
        # One entry: safetensors does not keep the order of several.
        metadata={_KEY: json.dumps({**header, _SUM: _checksum(header, tensors)}, sort_keys=True)},
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(temporary, target)


def load_plan(path: str) -> Plan:
    """Read a plan file; raises FileFormatError or VersionError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}
        header = json.loads(metadata[_KEY])
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise FileFormatError(f"{path} is not a plan file")
        if header.get("version") != VERSION:
            raise VersionError(
                f"{path} has plan format {header.get('version')!r}, this build reads {VERSION}: "
                "compile the model again"
            )
        # A flipped bit in a weight would otherwise give wrong answers without a word.
        if header.pop(_SUM) != _checksum(header, tensors):
            raise FileFormatError(f"{path} is damaged (checksum): compile the model again")
        return _decode(header, tensors)
    except FileNotFoundError as error:
        raise FileFormatError(f"no plan file at {path}: run he-infer compile first") from error
    except (FileFormatError, VersionError):
        raise
    except (
        SafetensorError,
        HEInferError,  # contents that contradict each other
        OSError,
        LookupError,
        ValueError,
        TypeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise FileFormatError(
            f"{path} is not a readable plan file ({type(error).__name__}): compile the model again"
        ) from error


def _encode(plan: Plan) -> tuple[dict[str, Any], Tensors]:
    tensors: Tensors = {}
    packing = plan.packing
    header = {
        "format": FORMAT,
        "version": VERSION,
        "name": plan.name,
        "params": plan.params.to_json(),
        "scale": plan.scale,
        "output_scale": plan.output_scale,
        "batch": plan.batch,
        "input_range": list(plan.input_range),
        "output_range": plan.output_range,
        "nodes": [_encode_node(node, tensors) for node in plan.graph],
        "layouts": {n: _encode_layout(n, la, tensors) for n, la in packing.layouts.items()},
        "choices": [
            [node, source, c.lanes, c.split.modulus, c.split.centred]
            for (node, source), c in packing.choices.items()
        ],
        "predicted_ms": packing.predicted_ms,
        "considered": list(packing.considered),
        "privacy": asdict(plan.privacy),
        "unrolled": packing.input.first_matrix is not None,
    }
    tensors["input.gather"] = packing.input.gather
    if packing.input.first_matrix is not None:
        _encode_matrix("input.first", packing.input.first_matrix, tensors)
    return header, tensors


def _encode_node(node: ir.Node, tensors: Tensors) -> dict[str, Any]:
    data: dict[str, Any] = {
        "kind": type(node).__name__,
        "name": node.name,
        "shape": list(node.shape),
        "sources": list(node.sources),
    }
    match node:
        case ir.Affine():
            tensors[f"{node.name}.bias"] = node.bias
            for i, matrix in enumerate(node.matrices):
                _encode_matrix(f"{node.name}.{i}", matrix, tensors)
        case ir.Polynomial():
            for part in ("coefficients", "center", "radius"):
                tensors[f"{node.name}.{part}"] = getattr(node, part)
        case ir.Activation():
            raise FileFormatError("a plan holds no unreplaced activations")
    return data


def _decode_node(data: dict[str, Any], sizes: dict[str, int], tensors: Tensors) -> ir.Node:
    name, shape, sources = str(data["name"]), tuple(data["shape"]), tuple(data["sources"])
    size = int(np.prod(shape))
    sizes[name] = size
    match data["kind"]:
        case "Input":
            return ir.Input(name=name, shape=shape)
        case "Affine":
            return ir.Affine(
                name=name,
                sources=sources,
                shape=shape,
                bias=tensors[f"{name}.bias"],
                matrices=tuple(
                    _decode_matrix(f"{name}.{i}", (size, sizes[source]), tensors)
                    for i, source in enumerate(sources)
                ),
            )
        case "Square":
            return ir.Square(name=name, source=sources[0], shape=shape)
        case "Polynomial":
            return ir.Polynomial(
                name=name,
                source=sources[0],
                shape=shape,
                coefficients=tensors[f"{name}.coefficients"],
                center=tensors[f"{name}.center"],
                radius=tensors[f"{name}.radius"],
            )
    raise FileFormatError(f"unknown node kind {data['kind']!r}")


def _encode_matrix(name: str, matrix: ir.Matrix, tensors: Tensors) -> None:
    ordered = sparse.csr_array(matrix)
    ordered.sort_indices()
    tensors[f"{name}.data"] = ordered.data
    tensors[f"{name}.indices"] = ordered.indices.astype(np.int32)
    tensors[f"{name}.indptr"] = ordered.indptr.astype(np.int64)


def _decode_matrix(name: str, shape: tuple[int, int], tensors: Tensors) -> ir.Matrix:
    parts = (tensors[f"{name}.data"], tensors[f"{name}.indices"], tensors[f"{name}.indptr"])
    matrix = sparse.csr_array(parts, shape=shape)
    matrix.check_format(full_check=True)
    return matrix


def _encode_layout(node: str, layout: Layout, tensors: Tensors) -> dict[str, Any]:
    tensors[f"layout.{node}"] = layout.positions.astype(np.int64)
    grid = layout.grid
    return {
        "name": layout.name,
        "slots": layout.slots,
        "period": layout.period,
        "ciphertexts": layout.ciphertexts,
        "clean": layout.clean,
        "spread": layout.spread,
        "stride": layout.stride,
        "grid": None if grid is None else [grid.block, grid.row, grid.column],
    }


def _decode_layout(node: str, data: dict[str, Any], tensors: Tensors) -> Layout:
    grid = data["grid"]
    return Layout(
        name=str(data["name"]),
        slots=data["slots"],
        period=data["period"],
        ciphertexts=data["ciphertexts"],
        positions=tensors[f"layout.{node}"],
        clean=data["clean"],
        spread=data["spread"],
        stride=data["stride"],
        grid=None if grid is None else Grid(block=grid[0], row=grid[1], column=grid[2]),
    )


def _decode(header: dict[str, Any], tensors: Tensors) -> Plan:
    sizes: dict[str, int] = {}
    graph = ir.Graph(nodes=tuple(_decode_node(n, sizes, tensors) for n in header["nodes"]))
    ir.verify(graph)
    layouts = {n: _decode_layout(n, la, tensors) for n, la in header["layouts"].items()}
    gather = tensors["input.gather"]
    first = None
    if header["unrolled"]:
        (reader,) = graph.consumers(graph.input.name)
        first = _decode_matrix("input.first", (sizes[reader.name], len(gather)), tensors)
    packing = Packing(
        input=InputPacking(layout=layouts[graph.input.name], gather=gather, first_matrix=first),
        layouts=layouts,
        choices={
            (node, source): Choice(lanes=lanes, split=Split(modulus=modulus, centred=centred))
            for node, source, lanes, modulus, centred in header["choices"]
        },
        predicted_ms=float(header["predicted_ms"]),
        considered=tuple(header["considered"]),
    )
    low, high = header["input_range"]
    return Plan(
        name=str(header["name"]),
        graph=graph,
        params=CKKSParams.from_json(header["params"]),
        scale=float(header["scale"]),
        output_scale=float(header["output_scale"]),
        batch=int(header["batch"]),
        packing=packing,
        input_range=(float(low), float(high)),
        output_range=float(header["output_range"]),
        privacy=FunctionPrivacy(**header["privacy"]),
    )
