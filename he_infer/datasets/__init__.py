"""Data sets: MNIST's test images embedded, the rest from IDX files, a download or scikit-learn."""

from he_infer.datasets.accuracy import wilson_interval as wilson_interval
from he_infer.datasets.downloads import (
    DATA_VARIABLE as DATA_VARIABLE,
    FASHION_MNIST as FASHION_MNIST,
    MNIST as MNIST,
    IdxFile as IdxFile,
    IdxSource as IdxSource,
    default_folder as default_folder,
    download as download,
    fashion_mnist as fashion_mnist,
    mnist as mnist,
)
from he_infer.datasets.embedded import (
    CALIBRATION_IMAGES as CALIBRATION_IMAGES,
    breast_cancer as breast_cancer,
    digits as digits,
    iris as iris,
    mnist_calibration as mnist_calibration,
    mnist_test as mnist_test,
)
from he_infer.datasets.records import Dataset as Dataset, Table as Table
