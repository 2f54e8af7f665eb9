"""A made-up audit for the report's tests: its figures were measured nowhere."""

from __future__ import annotations

import itertools
from typing import Any

TWINS = ["plaintext-relu", "plaintext-polynomial", "simulated", "encrypted"]


def estimate(value: float, half: float = 0.02, method: str = "bootstrap") -> dict[str, Any]:
    return {
        "value": value,
        "low": value - half,
        "high": value + half,
        "method": method,
        "count": 8,
        "confidence": 0.95,
    }


def curve(x: list[float], y: list[float]) -> dict[str, Any]:
    return {
        "x": x,
        "y": y,
        "low": [max(v - 0.03, 1e-4) for v in y],
        "high": [min(v + 0.03, 1.0) for v in y],
        "x_label": "x",
        "y_label": "y",
    }


def spent(records: int) -> dict[str, Any]:
    return {
        "records": records,
        "requests": 1,
        "bytes_sent": 9_000_000,
        "bytes_received": 800_000,
        "seconds": 4.2,
    }


def cell(metric: str, value: float, curves: dict[str, Any], records: int) -> dict[str, Any]:
    return {
        "status": "done",
        "reason": None,
        "metrics": {metric: estimate(value), "accuracy": estimate(0.9)}
        if metric != "auc"
        else {metric: estimate(value), "tpr_at_1pct": estimate(0.12)},
        "baseline": {metric: estimate(0.71)} if metric != "auc" else {},
        "curves": curves,
        "spent": spent(records),
        "seconds": 7.5,
        "targets": 8,
        "notes": ["no figure at 0.001 FPR: 3688 non-members are needed"],
    }


def attack(name: str, family: str, metric: str, value: float) -> dict[str, Any]:
    if family == "membership":
        rates = [0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0]
        curves = {"roc": curve(rates, [0.05, 0.08, 0.12, 0.3, 0.45, 0.8, 1.0])}
    else:
        curves = {"fidelity": curve([100.0, 400.0, 1600.0, 3000.0], [0.4, 0.62, 0.85, 0.99])}
    return {
        "name": name,
        "family": family,
        "title": name.replace("-", " ").capitalize(),
        "reference": "Somebody et al. 2020",
        "threat_model": "malicious client",
        "needs": "logits or probabilities",
        "primary": metric,
        "higher_is_worse": True,
        "cells": {twin: cell(metric, value, curves, 3000) for twin in TWINS},
        "paired": [
            {
                "from": before,
                "to": after,
                "metric": metric,
                "difference": estimate(0.05 if index == 0 else 0.001),
                "significant": index == 0,
            }
            for index, (before, after) in enumerate(itertools.pairwise(TWINS))
        ],
    }


def audit() -> dict[str, Any]:
    """A new copy every time, so that a test may spoil it."""
    refused = attack("path-finding", "extraction", "fidelity_test", 0.5)
    refused["primary"] = None
    refused["paired"] = []
    for twin in TWINS:
        refused["cells"][twin] = {
            "status": "refused",
            "reason": "path finding takes decision trees",
            "metrics": {},
            "baseline": {},
            "curves": {},
            "spent": spent(0),
            "seconds": 0.0,
            "targets": 0,
            "notes": [],
        }
    return {
        "schema": 1,
        "project_version": "0.0.0",
        "created": "2020-01-01T00:00:00+00:00",
        "command": "he-infer audit --model made-up --data made-up --out audit",
        "duration_s": 321.0,
        "model": {
            "name": "made-up",
            "input_shape": [64],
            "classes": 10,
            "parameters": 2410,
            "accuracy": {twin: estimate(0.95) for twin in TWINS},
            "train_accuracy": {twin: estimate(0.99, 0.005) for twin in TWINS},
        },
        "data": {"name": "made-up", "pool": 1000, "members_per_target": 500, "test": 300},
        "config": {"budget": 3000, "targets": 8, "attacks": ["all"], "weights": None},
        "seeds": {"audit": 0, "models": [1, 2, 3]},
        "versions": {"python": "3.11", "torch": "2.13.0"},
        "machine": "a made-up machine",
        "plan": {"poly_degree": 8192, "coeff_bits": [40, 33, 33], "batch": 4096},
        "twins": list(TWINS),
        "threat_models": [{"name": "malicious client", "text": "Holds the secret key."}],
        "game": "The challenger draws members by coin flips.",
        "attacks": [
            attack("quadratic-extraction", "extraction", "fidelity_test", 0.99),
            attack("lira-fixed", "membership", "auc", 0.71),
            refused,
        ],
        "blind": {"auc": estimate(0.5), "holds": True, "note": "no better than a coin"},
        "findings": [
            {
                "severity": "ok",
                "title": "Queries stay hidden",
                "text": "The server sees ciphertexts.",
                "advice": "",
            },
            {
                "severity": "high",
                "title": "A client can copy the model",
                "text": "One request of 3,000 records was enough.",
                "advice": "Count records.",
            },
        ],
    }
