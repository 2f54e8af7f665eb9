"""Where a command's model, arrays and passphrase come from."""

from __future__ import annotations

import getpass
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from he_infer.errors import CompileError, InputError, KeyFileError

if TYPE_CHECKING:
    from torch import nn

PASSPHRASE_VARIABLE: Final = "HE_INFER_PASSPHRASE"
ZOO_SAMPLE: Final = 1024


def load_model(reference: str, weights: Path | None) -> nn.Module:
    """A zoo name, or ``path/to/file.py:factory`` called without arguments, in evaluation mode.

    The file is *run*: name only files that you trust. ``weights``: safetensors, loaded strictly.
    Raises CompileError with the remedy for anything that does not give an nn.Module.
    """
    from torch import nn

    from he_infer import zoo

    if reference in zoo.NAMES:
        model = zoo.load(reference)
    else:
        factory = _factory(reference)
        try:
            model = factory()
        except Exception as error:  # the user's own code: any exception is possible
            raise CompileError(f"{reference} raised {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise CompileError(
                f"{reference} returned a {type(model).__name__}: expected an nn.Module"
            )
    if weights is not None:
        _load_weights(model, weights)
    return model.eval()


def _factory(reference: str) -> Callable[[], Any]:
    from he_infer import zoo

    path, colon, name = reference.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise CompileError(
            f"no model is called {reference!r}: give one of {', '.join(zoo.NAMES)}, or "
            "path/to/file.py:factory"
        )
    spec = importlib.util.spec_from_file_location("he_infer_user_model", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise CompileError(f"{path} is not a Python file that can be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code again
        raise CompileError(f"{path} raised {type(error).__name__}: {error}") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise CompileError(f"{path} defines no function {name!r}")
    return factory  # type: ignore[no-any-return]


def _load_weights(model: nn.Module, path: Path) -> None:
    import safetensors
    import safetensors.torch

    try:
        model.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise CompileError(f"{path} is not a safetensors file that can be read: {error}") from error
    except RuntimeError as error:
        first = str(error).splitlines()[1:2]
        raise CompileError(
            f"the weights in {path} do not fit the model: {''.join(first).strip()}"
        ) from error


def load_sample(reference: str, path: Path | None) -> NDArray[np.float32]:
    """Calibration inputs: the file's, or the zoo's own for a model of the zoo."""
    from he_infer import zoo

    if path is not None:
        return load_array(path)
    if reference in zoo.NAMES:
        return zoo.sample(reference, ZOO_SAMPLE)
    raise InputError(
        "a model of your own needs --sample FILE.npy: a few hundred typical inputs, "
        "(records, *record shape)"
    )


def load_array(path: Path) -> NDArray[np.float32]:
    """A .npy file of real numbers as float32; pickled objects are refused.

    Raises InputError if it is anything else.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not a .npy file of numbers: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise InputError(f"{path} does not hold one array of real numbers")
    return array.astype(np.float32)


def read_passphrase(file: Path | None, *, confirm: bool) -> str:
    """From ``file``, else the environment, else asked for on the terminal.

    Raises KeyFileError if there is none of these, or if it is empty or mistyped.
    """
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"cannot read the passphrase from {file}: {error}") from error
    elif PASSPHRASE_VARIABLE in os.environ:
        text = os.environ[PASSPHRASE_VARIABLE]
    elif sys.stdin.isatty():
        text = getpass.getpass("passphrase of the key file: ")
        if confirm and getpass.getpass("the same again: ") != text:
            raise KeyFileError("the two passphrases differ: try again")
    else:
        raise KeyFileError(f"no passphrase: give --passphrase-file, or set {PASSPHRASE_VARIABLE}")
    if not text:
        raise KeyFileError("an empty passphrase protects nothing: choose one")
    return text
