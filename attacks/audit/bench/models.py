"""The model under audit: read from a name or a file, and made anew, untrained, for every target.

Targets and shadows are trained from fresh weights. The weights that a model came with were trained
on records that nobody knows here, so they are never mixed with these.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attacks.audit.bench.data import Split, shapes_for
from attacks.audit.config import AuditConfig
from attacks.errors import AuditError, DataSplitError
from attacks.oracles.recipes import CRYPTODL
from attacks.oracles.twins import relu_original
from attacks.training.recipe import Replacement, TwinRecipe
from attacks.training.stack import AfterStep, Stack, TrainingConfig
from he_infer import zoo
from he_infer.activations.convert.sites import activation_sites, separate_activations
from he_infer.cli.sources import load_model
from he_infer.compiler.batching import compile_for_records
from he_infer.errors import HEInferError

# Distillation beside the labels, as CryptoDL's fine-tuning is here.
DISTILLATION = 0.5
# The fine-tuning of a network that is already good takes smaller steps than its training.
FINE_TUNE_RATE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The audited model, and how it is trained anew.

    ``delivered``: the model with the weights that it came with, or None if it had none.
    ``split``: the records in the shape that the model takes. ``contents``: digests of the files
    that define it. ``notes``: what a reader of the report must know.
    """

    name: str
    recipe: TwinRecipe
    split: Split
    delivered: nn.Module | None
    parameters: int
    contents: dict[str, str]
    notes: tuple[str, ...]


def read_subject(config: AuditConfig, split: Split) -> Subject:
    """The model of ``config`` and the recipe that retrains it.

    Raises AuditError, before anything is trained, if it does not fit the data or its polynomial
    twin cannot be served; HEInferError if the file or the weights cannot be read.
    """
    model = load_model(config.model, config.weights)
    fitted = _fit_shape(model, split, config.model)
    architecture = functools.partial(fresh_relu_model, config.model)
    notes: list[str] = []
    stuck = _stuck_parameters(architecture)
    if stuck:
        notes.append(
            f"{config.model} starts {', '.join(stuck)} from values of its own, which cannot be "
            "drawn anew: shadow models share them with their targets"
        )
    replacement = CRYPTODL
    if not _has_activations(architecture()):
        replacement = AS_IT_IS
        notes.append(
            "the model has no activation to replace, so the ReLU original and the polynomial twin "
            "are one network, trained twice"
        )
    training = TrainingConfig(
        epochs=config.epochs,
        batch=config.batch,
        rate=config.rate,
        weight_decay=config.weight_decay,
    )
    recipe = TwinRecipe(
        name=config.model,
        architecture=architecture,
        relu=training,
        polynomial=replace(
            training,
            epochs=config.fine_tune_epochs,
            rate=FINE_TUNE_RATE * config.rate,
            distillation=DISTILLATION,
        ),
        replacement=replacement,
        low=fitted.low,
        high=fitted.high,
    )
    _check_servable(recipe, fitted)
    comes_with_weights = config.weights is not None or config.model in zoo.NAMES
    return Subject(
        name=config.model,
        recipe=recipe,
        split=fitted,
        delivered=model if comes_with_weights else None,
        parameters=sum(p.numel() for p in architecture().parameters()),
        contents=_contents(config),
        notes=tuple(notes),
    )


def fresh_relu_model(reference: str) -> nn.Module:
    """The architecture behind ``reference`` with ReLUs and weights drawn from torch's stream.

    A module-level function, so that another process can call it.
    """
    # A factory may seed torch for itself; that must not decide what is drawn afterwards.
    state = torch.random.get_rng_state()
    model = load_model(reference, None)
    torch.random.set_rng_state(state)
    network = relu_original(model).float().train()
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return network


def _same(model: nn.Module, members: NDArray[np.float32]) -> nn.Module:
    del members
    return copy.deepcopy(model)


def _unbounded(stack: Stack) -> AfterStep:
    del stack
    return _nothing


def _nothing(parameters: dict[str, torch.Tensor]) -> None:
    del parameters


AS_IT_IS = Replacement(network=_same, bounds=_unbounded, description="nothing to replace")


def _fit_shape(model: nn.Module, split: Split, name: str) -> Split:
    """The split in the first shape in which the model answers (records, classes)."""
    natural = split.pool.shape
    problems: list[str] = []
    for shape in shapes_for(natural):
        probe = torch.as_tensor(split.pool.inputs[:2].reshape(2, *shape), dtype=torch.float32)
        try:
            with torch.no_grad():
                outputs = model.eval()(probe)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            problems.append(f"{shape}: {str(error).splitlines()[0]}")
            continue
        if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2 or len(outputs) != 2:
            problems.append(f"{shape}: it does not answer (records, classes)")
            continue
        if outputs.shape[1] != split.classes:
            raise AuditError(
                f"{name} tells {outputs.shape[1]} classes apart, {split.name} has {split.classes}"
                + (": give one output per class" if outputs.shape[1] == 1 else "")
            )
        return split.shaped(shape)
    raise DataSplitError(
        f"{name} takes records of none of the shapes that {split.name} has: {'; '.join(problems)}"
    )


def _has_activations(model: nn.Module) -> bool:
    network, _ = separate_activations(model)
    return bool(activation_sites(network))


def _stuck_parameters(architecture: Callable[[], nn.Module]) -> tuple[str, ...]:
    """Parameters that two different seeds start at the same values which are not constant."""
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = dict(architecture().named_parameters())
        torch.manual_seed(2)
        second = dict(architecture().named_parameters())
    for name, value in first.items():
        varied = bool((value != value.flatten()[0]).any())
        if varied and torch.equal(value, second[name]):
            found.append(name)
    return tuple(found)


def _check_servable(recipe: TwinRecipe, split: Split) -> None:
    """Compile an untrained twin: what cannot be served is better known before the training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = recipe.architecture().eval()
    sample = split.pool.inputs[:256].astype(np.float32)
    try:
        twin = recipe.replacement.network(network, sample)
        compile_for_records(twin, sample, records=1, name="target")
    except HEInferError as error:
        raise AuditError(f"{recipe.name} cannot be served encrypted: {error}") from error


def _contents(config: AuditConfig) -> dict[str, str]:
    paths: dict[str, Path] = {}
    name, colon, _ = config.model.rpartition(":")
    if colon:
        paths["model"] = Path(name)
    if config.weights is not None:
        paths["weights"] = config.weights
    return {what: hashlib.sha256(path.read_bytes()).hexdigest() for what, path in paths.items()}
