"""Encrypted inference: a PyTorch model goes in, a service that answers encrypted queries comes out.

The public names below are loaded on first use, so that ``import he_infer`` costs nothing and a
client that only encrypts never loads torch or a web framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from he_infer.version import __version__

if TYPE_CHECKING:
    from he_infer import errors as errors
    from he_infer.client.client import Client as Client
    from he_infer.compiler.batching import compile_for_records as compile_for_records
    from he_infer.compiler.pipeline import compile as compile
    from he_infer.compiler.report import compile_report as compile_report
    from he_infer.keys.evaluation import EvaluationKeys as EvaluationKeys
    from he_infer.keys.secret import SecretKeys as SecretKeys
    from he_infer.params import CKKSParams as CKKSParams
    from he_infer.plan.client_spec import ClientSpec as ClientSpec
    from he_infer.plan.file import load_plan as load_plan
    from he_infer.plan.file import save_plan as save_plan
    from he_infer.plan.plan import Plan as Plan
    from he_infer.runtime.describe import describe as describe

__all__ = [
    "CKKSParams",
    "Client",
    "ClientSpec",
    "EvaluationKeys",
    "Plan",
    "SecretKeys",
    "__version__",
    "compile",
    "compile_for_records",
    "compile_report",
    "describe",
    "errors",
    "load_plan",
    "save_plan",
]

_HOMES: Final = {
    "CKKSParams": "he_infer.params",
    "Client": "he_infer.client.client",
    "ClientSpec": "he_infer.plan.client_spec",
    "EvaluationKeys": "he_infer.keys.evaluation",
    "Plan": "he_infer.plan.plan",
    "SecretKeys": "he_infer.keys.secret",
    "compile": "he_infer.compiler.pipeline",
    "compile_for_records": "he_infer.compiler.batching",
    "compile_report": "he_infer.compiler.report",
    "describe": "he_infer.runtime.describe",
    "load_plan": "he_infer.plan.file",
    "save_plan": "he_infer.plan.file",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name == "errors":
        return importlib.import_module("he_infer.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'he_infer' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
