"""Adversarial training (Madry et al. 2018, arXiv:1706.06083): PGD inside the training loop.

min over weights of the mean of max over |δ| ≤ ε of loss(x + δ, y), the inner maximum by PGD.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from attacks.errors import DataSplitError
from attacks.evasion.gradient.pgd import perturb
from attacks.evasion.norms import Linf, Norm
from attacks.training.perturbed import Batch, PerturbedTraining
from attacks.training.recipe import TwinRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectedGradient:
    """Inputs at the end of ``steps`` of PGD from a random start.

    ``epsilon``: in input units, in ``norm``; ``step_share``: a step as a share of epsilon. With
    one step of 1.25 it is the random-start FGSM of Wong, Rice and Kolter 2020.
    """

    epsilon: float
    norm: Norm = Linf()  # noqa: RUF009  frozen and without state
    steps: int = 7
    step_share: float = 0.25

    def __post_init__(self) -> None:
        if not self.epsilon > 0 or self.steps < 1 or not self.step_share > 0:
            raise DataSplitError(
                f"epsilon, steps and step_share are positive, got {self.epsilon}, {self.steps} "
                f"and {self.step_share}"
            )

    def moved(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, *shape) within epsilon and the batch's range; DataSplitError for an epsilon beyond
        the longest change within that range."""
        widest = self.norm.diameter(batch.high - batch.low, batch.inputs[0].numel())
        if self.epsilon > widest:
            raise DataSplitError(
                f"epsilon {self.epsilon:g} is more than {widest:g}, the longest {self.norm.name} "
                f"change within the inputs' range [{batch.low:g}, {batch.high:g}]"
            )
        return perturb(
            model,
            batch.inputs,
            batch.labels,
            epsilon=self.epsilon,
            norm=self.norm,
            steps=self.steps,
            step=self.step_share * self.epsilon,
            low=batch.low,
            high=batch.high,
            generator=batch.generator,
        )


def adversarial_training(
    recipe: TwinRecipe, *, against: ProjectedGradient, range_weight: float = 1.0
) -> TwinRecipe:
    """The recipe with both twins trained on what ``against`` makes of their members."""
    return replace(
        recipe,
        name=f"{recipe.name}, against {against.norm.name} {against.epsilon:g}",
        procedure=PerturbedTraining(perturbation=against, range_weight=range_weight),
    )
