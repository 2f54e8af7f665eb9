"""Data sets: MNIST's test images embedded, the rest from IDX files, a download or scikit-learn."""

from he_infer.datasets.downloads import (
    DATA_VARIABLE as DATA_VARIABLE,
)
from he_infer.datasets.downloads import (
    FASHION_MNIST as FASHION_MNIST,
)
from he_infer.datasets.downloads import (
    MNIST as MNIST,
)
from he_infer.datasets.downloads import (
    IdxFile as IdxFile,
)
from he_infer.datasets.downloads import (
    IdxSource as IdxSource,
)
from he_infer.datasets.downloads import (
    default_folder as default_folder,
)
from he_infer.datasets.downloads import (
    download as download,
)
from he_infer.datasets.downloads import (
    fashion_mnist as fashion_mnist,
)
from he_infer.datasets.downloads import (
    mnist as mnist,
)
from he_infer.datasets.embedded import (
    CALIBRATION_IMAGES as CALIBRATION_IMAGES,
)
from he_infer.datasets.embedded import (
    breast_cancer as breast_cancer,
)
from he_infer.datasets.embedded import (
    digits as digits,
)
from he_infer.datasets.embedded import (
    iris as iris,
)
from he_infer.datasets.embedded import (
    mnist_calibration as mnist_calibration,
)
from he_infer.datasets.embedded import (
    mnist_test as mnist_test,
)
from he_infer.datasets.records import Dataset as Dataset
from he_infer.datasets.records import Table as Table
