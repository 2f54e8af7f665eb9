"""The Open Inference Protocol V2 as this service speaks it: names, paths and the binary head.

A query is one UINT8 tensor named "query", a reply one named "reply". With the binary-data
extension a body is a JSON head, whose length is the header ``Inference-Header-Content-Length``,
followed by the tensor's bytes::

    {"inputs": [{"name": "query", "datatype": "UINT8", "shape": [n],
                 "parameters": {"binary_data_size": n}}]} | n bytes

Source: the Open Inference Protocol specification (kserve/open-inference-protocol) and Triton's
binary tensor data extension.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from he_infer.errors import TooLargeError, WireError

HEAD_LENGTH_HEADER: Final = "inference-header-content-length"
QUERY_TENSOR: Final = "query"
REPLY_TENSOR: Final = "reply"
MAX_HEAD_BYTES: Final = 16 * 1024
MAX_UPLOAD_BYTES: Final = 2**40
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a model or a tenant
VERSION: Final = re.compile(r"[0-9a-f]{12}")  # of a plan, as an address names it
UPLOAD: Final = re.compile(r"[0-9a-f]{32}")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
IDEMPOTENCY_HEADER: Final = "idempotency-key"
IDEMPOTENCY_KEY: Final = re.compile(r"[A-Za-z0-9-]{16,64}")
VERSION_CHARACTERS: Final = 12


def model_path(model: str, version: str | None = None) -> str:
    """The path of a model's metadata; the name is checked, so that it cannot leave its place.

    Without ``version`` it is that of whichever version is the default.
    """
    if not NAME.fullmatch(model):
        raise WireError(
            "a model name has 1 to 100 letters, digits, dots, dashes or underscores: "
            "this one does not"
        )
    return f"/v2/models/{model}" + ("" if version is None else f"/versions/{version}")


def infer_path(model: str, version: str | None = None) -> str:
    return f"{model_path(model, version)}/infer"


def keys_path(model: str, digest: str, version: str | None = None) -> str:
    return f"{model_path(model, version)}/keys/{digest}"


def uploads_path(model: str, version: str | None = None) -> str:
    """Where an upload of evaluation keys begins."""
    return f"{model_path(model, version)}/keys/uploads"


def version_of(plan_digest: str) -> str:
    """The model version that a plan digest (64 hexadecimal digits) is published under."""
    return plan_digest[:VERSION_CHARACTERS]


def request_id(proposed: str | None, otherwise: str) -> str:
    """The caller's id for a request if it is harmless to log, else ``otherwise``."""
    return proposed if proposed and _REQUEST_ID.fullmatch(proposed) else otherwise


def query_head(length: int) -> bytes:
    """The JSON head of a query whose tensor has ``length`` bytes."""
    tensor = _tensor(QUERY_TENSOR, length)
    wanted = {"name": REPLY_TENSOR, "parameters": {"binary_data": True}}
    return json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()


def reply_head(length: int, *, model: str, version: str, request: str, evaluate_ms: float) -> bytes:
    """The JSON head of a reply whose tensor has ``length`` bytes."""
    head = {
        "model_name": model,
        "model_version": version,
        "id": request,
        "parameters": {"evaluate_ms": round(evaluate_ms, 3)},
        "outputs": [_tensor(REPLY_TENSOR, length)],
    }
    return json.dumps(head).encode()


def head_length(text: str | None) -> int:
    """The head's length from its HTTP header; raises WireError or TooLargeError."""
    if text is None:
        raise WireError(
            f"the header {HEAD_LENGTH_HEADER} is missing: queries use the binary data extension"
        )
    length = decimal(text)
    if length is None or length == 0:
        raise WireError(f"the header {HEAD_LENGTH_HEADER} is not a positive decimal number")
    if length > MAX_HEAD_BYTES:
        raise TooLargeError(f"a JSON head of {length} bytes: at most {MAX_HEAD_BYTES} are read")
    return length


def decimal(text: str) -> int | None:
    """A plain decimal number of at most 15 digits, or None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def parse_query_head(head: bytes, *, length: int) -> str | None:
    """Check a query's head against the tensor length expected; returns the caller's id if any.

    Raises WireError naming the first field that is not as the protocol wants it.
    """
    data = _object(head)
    _check_tensor(data.get("inputs"), kind="inputs", name=QUERY_TENSOR, length=length)
    outputs = data.get("outputs")
    if outputs is not None and (
        not isinstance(outputs, list)
        or len(outputs) != 1
        or not isinstance(outputs[0], dict)
        or outputs[0].get("name") != REPLY_TENSOR
    ):
        raise WireError(f'the only output offered is one tensor named "{REPLY_TENSOR}"')
    identity = data.get("id")
    if identity is not None and not isinstance(identity, str):
        raise WireError('"id" must be a string')
    return identity


def parse_reply_head(head: bytes, *, length: int) -> float:
    """Check a reply's head against the tensor length expected; returns evaluate_ms (NaN if none).

    Raises WireError.
    """
    data = _object(head)
    _check_tensor(data.get("outputs"), kind="outputs", name=REPLY_TENSOR, length=length)
    parameters = data.get("parameters")
    value = parameters.get("evaluate_ms") if isinstance(parameters, dict) else None
    usable = isinstance(value, int | float) and 0 <= value < 1e9
    return float(value) if usable and value is not None else float("nan")


def parse_json(data: bytes) -> Any:
    """JSON from outside: finite numbers only, bounded nesting; raises WireError."""
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WireError("this is not JSON") from error


def _refuse_constant(text: str) -> Any:
    raise ValueError("a number is not finite")


def _object(head: bytes) -> dict[str, Any]:
    data = parse_json(head)
    if not isinstance(data, dict):
        raise WireError("the head is not a JSON object")
    return data


def _tensor(name: str, length: int) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": "UINT8",
        "shape": [length],
        "parameters": {"binary_data_size": length},
    }


def _check_tensor(tensors: Any, *, kind: str, name: str, length: int) -> None:
    if not isinstance(tensors, list) or len(tensors) != 1 or not isinstance(tensors[0], dict):
        raise WireError(f'"{kind}" must be a list of one tensor')
    tensor = tensors[0]
    for field, wanted in _tensor(name, length).items():
        value = tensor.get(field)
        if field == "parameters" and isinstance(value, dict):
            value = {"binary_data_size": value.get("binary_data_size")}
        if value != wanted:
            raise WireError(f'the tensor in "{kind}" needs "{field}": {json.dumps(wanted)}')
