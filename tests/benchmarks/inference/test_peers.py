"""The list of peers, and what happens to one that is not installed."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import build_parser
from benchmarks.inference import cases, latency
from benchmarks.inference.peers.helayers_peer import HElayersEngine, write_onnx
from benchmarks.inference.peers.square_network import Dense, SquareNetwork
from he_infer import native
from he_infer.errors import BackendError, InputError


def test_peers_are_a_list() -> None:
    assert latency.parse_peers("tenseal, seal,helayers") == ("tenseal", "seal", "helayers")
    assert latency.parse_peers("") == ()
    with pytest.raises(InputError, match="no peer is called lattigo"):
        latency.parse_peers("seal,lattigo")


def latencies(*words: str) -> Any:
    """The records of digits-mlp as JSON."""
    options = build_parser().parse_args(["latency", "--case", "digits-mlp", *words])
    return latency.run(options).document


def test_a_missing_peer_is_skipped_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyhelayers", None)
    words = ["--backend", "plain", "--repeats", "1", "--against", "helayers"]
    assert [r["engine"] for r in latencies(*words)] == ["he-infer"]
    assert "skipped: helayers: pyhelayers is not installed" in capsys.readouterr().err


@pytest.mark.skipif(native.core is None, reason="the extension was not built")
def test_seal_runs_the_same_plan() -> None:
    records = latencies("--threads", "1,2", "--repeats", "3", "--against", "seal")
    found = [(r["backend"], r["threads"]) for r in records]
    assert found == [("native", 1), ("native", 2), ("seal", 1)]
    assert {r["log_qp"] for r in records} == {records[0]["log_qp"]}
    assert all(r["label_agreement"] == 1.0 for r in records)
    ours, theirs = records[0]["evaluate_ms"], records[2]["evaluate_ms"]
    ratio = theirs["median"] / ours["median"]
    assert records[2]["ratio_evaluate"] == pytest.approx(ratio)
    # The best of each: a median of few has what else the machine did in it.
    assert theirs["min"] / ours["min"] > 1


def test_convolutions_are_not_for_helayers() -> None:
    pytest.importorskip("pyhelayers", reason="a peer that is installed by hand")
    from benchmarks.inference.peers.square_network import read_square_network

    case = cases.load("tutorial-cnn")
    with pytest.raises(BackendError, match="dense"):
        HElayersEngine(read_square_network(case.model, case.sample))


def test_onnx_is_written(tmp_path: object) -> None:
    onnx = pytest.importorskip("onnx", reason="comes with the peer")
    from pathlib import Path

    path = Path(str(tmp_path)) / "network.onnx"
    dense = Dense(weight=np.ones((4, 2)), bias=np.zeros(2))
    write_onnx(
        SquareNetwork(
            convolution=None, dense=(dense, Dense(weight=np.ones((2, 3)), bias=np.zeros(3)))
        ),
        path,
    )
    assert [node.op_type for node in onnx.load(str(path)).graph.node] == ["Gemm", "Mul", "Gemm"]
