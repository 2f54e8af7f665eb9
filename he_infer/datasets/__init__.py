"""Data sets: MNIST's test images embedded, the rest from IDX files, a download or scikit-learn."""

from he_infer.datasets.accuracy import wilson_interval
from he_infer.datasets.downloads import (
    DATA_VARIABLE,
    FASHION_MNIST,
    MNIST,
    IdxFile,
    IdxSource,
    default_folder,
    download,
    fashion_mnist,
    mnist,
)
from he_infer.datasets.embedded import (
    CALIBRATION_IMAGES,
    breast_cancer,
    digits,
    iris,
    mnist_calibration,
    mnist_test,
)
from he_infer.datasets.records import Dataset, Table

__all__ = [
    "CALIBRATION_IMAGES",
    "DATA_VARIABLE",
    "FASHION_MNIST",
    "MNIST",
    "Dataset",
    "IdxFile",
    "IdxSource",
    "Table",
    "breast_cancer",
    "default_folder",
    "digits",
    "download",
    "fashion_mnist",
    "iris",
    "mnist",
    "mnist_calibration",
    "mnist_test",
    "wilson_interval",
]
