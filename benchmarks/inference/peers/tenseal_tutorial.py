"""TenSEAL's own vectors on the same network: once as its tutorial does it, once tuned.

Tutorial 4 (encrypted convolution on MNIST): im2col encoding, one conv2d_im2col per channel,
pack_vectors, then square_ and mm; N = 8192, [31, 26 × 6, 31], scale 2^26.

Tuned: each channel is squared and multiplied by its rows of the first dense layer before the
channels are added. That avoids pack_vectors and with it one level, so the five primes that
remain can be three bits wider at 128-bit security. A dense network needs three levels only.

One departure from the tutorial, in both: dense biases are added encrypted. ``mm`` reads slots
beyond its input's size and relies on copies of the vector there; a plain list fills the first
slots only, so that the next ``mm`` is silently wrong (TenSEAL issues 462 and 504), by 40 on
logits of this network. An encrypted list is replicated, and adding it costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tenseal
from numpy.typing import NDArray

from benchmarks.inference.engine import Facts
from benchmarks.inference.peers.square_network import Convolution, SquareNetwork
from benchmarks.record import security_bits
from he_infer.errors import BackendError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """TenSEAL's context: ring degree, sizes of all moduli, log2 of the scale.

    ``pack_channels``: join the convolution's channels with pack_vectors, as the tutorial does.
    """

    name: str
    n: int
    modulus_bits: tuple[int, ...]
    scale_bits: int
    pack_channels: bool

    @property
    def log_qp(self) -> float:
        return float(sum(self.modulus_bits))


TUTORIAL: Final = Settings(
    name="tenseal-tutorial",
    n=8192,
    modulus_bits=(31, 26, 26, 26, 26, 26, 26, 31),
    scale_bits=26,
    pack_channels=True,
)
TUNED_CONVOLUTION: Final = Settings(
    name="tenseal-tuned",
    n=8192,
    modulus_bits=(33, 29, 29, 29, 29, 29, 33),
    scale_bits=29,
    pack_channels=False,
)
# N = 4096 would fit these three levels with 20-bit primes, but logits of order one then come
# back with errors above 0.5.
TUNED_DENSE: Final = Settings(
    name="tenseal-tuned",
    n=8192,
    modulus_bits=(31, 26, 26, 26, 31),
    scale_bits=26,
    pack_channels=False,
)


def tuned_settings(network: SquareNetwork) -> Settings:
    """The fastest settings found for a network of this form."""
    return TUNED_CONVOLUTION if network.convolution else TUNED_DENSE


class TenSEALEngine:
    """An Engine over ``tenseal.CKKSVector``; a query is one record.

    Weights become lists when the engine is made; TenSEAL encodes them anew in every call.
    """

    batch = 1

    def __init__(self, network: SquareNetwork, settings: Settings) -> None:
        self._settings = settings
        self._convolution = network.convolution
        self._layers = network.dense
        self._weights: list[list[list[float]]] = [layer.weight.tolist() for layer in network.dense]
        self._biases: list[Any] = []
        self._context: Any = None
        self._windows = 0

    @property
    def facts(self) -> Facts:
        n, log_qp = self._settings.n, self._settings.log_qp
        weak = "128-bit by SEAL's table of 2018, below 128 by the 2024 guidelines"
        return Facts(
            engine=self._settings.name,
            backend="tenseal",
            n=n,
            log_qp=log_qp,
            note="" if security_bits(n, log_qp) else weak,
        )

    def keygen(self) -> int:
        """All keys of a TenSEAL context; returns the bytes of its public serialisation."""
        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            self._settings.n,
            coeff_mod_bit_sizes=list(self._settings.modulus_bits),
            n_threads=1,
        )
        context.global_scale = 2**self._settings.scale_bits
        context.generate_galois_keys()
        self._context = context
        public = context.serialize(
            save_public_key=True,
            save_secret_key=False,
            save_galois_keys=True,
            save_relin_keys=True,
        )
        return len(public)

    def prepare(self) -> None:
        """Encrypt the biases; TenSEAL keeps no encoded weights."""
        self._biases = [
            tenseal.ckks_vector(self._context, layer.bias.tolist()) for layer in self._layers
        ]

    def encrypt(self, records: NDArray[np.float32]) -> Any:
        if self._context is None:
            raise BackendError("no keys: call keygen() first")
        record = records[0].astype(np.float64)
        if self._convolution is None:
            return tenseal.ckks_vector(self._context, record.reshape(-1).tolist())
        image = record.reshape(self._convolution.side, self._convolution.side)
        size = self._convolution.kernels.shape[1]
        encoded, self._windows = tenseal.im2col_encoding(
            self._context, image.tolist(), size, size, self._convolution.stride
        )
        return encoded

    def evaluate(self, query: Any) -> Any:
        if not self._biases:
            raise BackendError("the biases are not encrypted: call prepare() first")
        dense = list(zip(self._weights, self._biases, strict=True))
        if self._convolution is None:
            weight, bias = dense.pop(0)
            hidden = query.mm(weight) + bias
        elif self._settings.pack_channels:
            hidden = tenseal.CKKSVector.pack_vectors(self._channels(query, self._convolution))
        else:
            weight, bias = dense.pop(0)
            hidden = self._channelwise(query, self._convolution, weight) + bias
        for weight, bias in dense:
            hidden.square_()
            hidden = hidden.mm(weight) + bias
        return hidden

    def decrypt(self, reply: Any, count: int) -> NDArray[np.float64]:
        return np.asarray([reply.decrypt()])[:count]

    def upload_bytes(self, query: Any) -> int:
        return len(query.serialize())

    def download_bytes(self, reply: Any) -> int:
        return len(reply.serialize())

    def _channels(self, query: Any, layer: Convolution) -> list[Any]:
        return [
            query.conv2d_im2col(kernel.tolist(), self._windows) + float(bias)
            for kernel, bias in zip(layer.kernels, layer.bias, strict=True)
        ]

    def _channelwise(self, query: Any, layer: Convolution, weight: list[list[float]]) -> Any:
        """Σ_c square(channel c) @ rows of ``weight`` that belong to channel c."""
        total: Any = None
        for index, channel in enumerate(self._channels(query, layer)):
            channel.square_()
            rows = weight[index * layer.windows : (index + 1) * layer.windows]
            part = channel.mm(rows)
            total = part if total is None else total + part
        return total
