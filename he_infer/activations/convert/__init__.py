"""Turns a trained network into one whose activations are polynomials, and fine-tunes it.

For example::

    network, report = polynomialize(
        model, sample, config=PolynomializeConfig(degree=2),
        training=TrainingData(inputs=x, labels=y), rng=np.random.default_rng(0),
    )
"""

from he_infer.activations.convert.config import (
    PolynomializeConfig as PolynomializeConfig,
    PolynomializeReport as PolynomializeReport,
    SiteReport as SiteReport,
    TrainingData as TrainingData,
)
from he_infer.activations.convert.replacement import polynomialize as polynomialize
from he_infer.activations.forward import predict as predict
