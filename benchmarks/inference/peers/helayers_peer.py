"""HElayers (IBM, non-commercial licence) on the networks we compile, its optimiser choosing.

It reads the network as ONNX, picks packing and parameters for one image at 128-bit security,
and evaluates on SEAL, as we ask it to; it is given no upload or key limits.
"""

from __future__ import annotations

import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.inference.engine import Facts
from benchmarks.inference.peers.square_network import SquareNetwork
from he_infer.errors import BackendError

FRACTIONAL_BITS: Final = 28  # of its values' scale, about what our chains have


class HElayersEngine:
    """One image a query; ``keygen`` makes the context with all keys and compiles the model."""

    batch = 1

    def __init__(self, network: SquareNetwork) -> None:
        try:
            import pyhelayers
        except ImportError as error:
            raise BackendError("pyhelayers is not installed: pip install pyhelayers") from error
        if network.convolution is not None:
            # Its answers to our convolution's ONNX were off by 5.9: not the same network.
            raise BackendError("this peer is written for dense networks only")
        self._library: Any = pyhelayers
        self._network = network
        self._context: Any = None
        self._model: Any = None
        self._encoder: Any = None
        self._plain: Any = None
        self._profile: Any = None

    @property
    def facts(self) -> Facts:
        """The library does not tell its modulus; it was asked for 128 bits, its default."""
        version = metadata.version("pyhelayers")
        return Facts(
            engine="HElayers",
            backend="seal",
            n=2 * int(self._context.slot_count()) if self._context is not None else 0,
            log_qp=None,
            note=f"pyhelayers {version}, non-commercial licence, {FRACTIONAL_BITS} fractional bits",
        )

    def keygen(self) -> int:
        h = self._library
        requirements = h.HeRunRequirements()
        requirements.set_he_context_options([h.SealCkksContext()])
        requirements.optimize_for_batch_size(1)
        requirements.set_model_encrypted(False)
        requirements.set_fractional_part_precision(FRACTIONAL_BITS)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            write_onnx(self._network, path)
            try:
                self._plain = h.PlainModel.create(h.PlainModelHyperParams(), [str(path)])
                self._profile = h.HeModel.compile(self._plain, requirements)
                self._context = h.HeModel.create_context(self._profile)
            except RuntimeError as error:
                raise BackendError(f"HElayers refuses the network: {error}") from error
        return len(self._context.save_to_buffer())

    def prepare(self) -> None:
        self._model = self._plain.get_empty_he_model(self._context)
        self._model.encode(self._plain, self._profile)
        self._encoder = self._library.ModelIoEncoder(self._model)

    def encrypt(self, records: NDArray[np.float32]) -> Any:
        query = self._library.EncryptedData(self._context)
        images = records.reshape(len(records), -1).astype(np.float64)
        self._encoder.encode_encrypt(query, [images])
        return query

    def evaluate(self, query: Any) -> Any:
        reply = self._library.EncryptedData(self._context)
        self._model.predict(reply, query)
        return reply

    def decrypt(self, reply: Any, count: int) -> NDArray[np.float64]:
        values = np.asarray(self._encoder.decrypt_decode_output(reply), dtype=np.float64)
        return values.reshape(count, -1)

    def upload_bytes(self, query: Any) -> int:
        return len(query.save_to_buffer())

    def download_bytes(self, reply: Any) -> int:
        return len(reply.save_to_buffer())


def write_onnx(network: SquareNetwork, path: Path) -> None:
    """A dense network as ONNX: Gemm layers with Mul(x, x) between them."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise BackendError("onnx is not installed: pip install onnx") from error
    nodes, weights = [], []

    def constant(name: str, values: NDArray[np.float64]) -> str:
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    current, shape = "x", [1, network.dense[0].weight.shape[0]]
    for i, dense in enumerate(network.dense):
        if i > 0:
            nodes.append(helper.make_node("Mul", [current, current], [f"square{i}"]))
            current = f"square{i}"
        inputs = [current, constant(f"w{i}", dense.weight), constant(f"b{i}", dense.bias)]
        current = f"y{i}"
        nodes.append(helper.make_node("Gemm", inputs, [current]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(current, TensorProto.FLOAT, [1, len(dense.bias)])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
