"""Transfer: steal a substitute through the oracle, craft on it, ask the oracle once.

    oracle ──labels or scores──► substitute ──PGD on its gradients──► moved ──► oracle: fooled?

Papernot et al. 2017's whole chain, with any extraction that leaves a model with gradients.
A substitute imitates the target; an exact extraction is the target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from attacks.core.oracle import Oracle
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.evasion.asking import generator_of
from attacks.evasion.black_box.stolen import as_network
from attacks.evasion.gradient.pgd import PGD
from attacks.evasion.norms import Norm
from attacks.evasion.outcome import EvasionAttempt
from attacks.evasion.setting import EvasionData
from attacks.extraction.papernot import PapernotSubstitute
from attacks.extraction.setting import ExtractionData


class Extraction(Protocol):
    """An extraction attack; the artifact of its result is the model that it stole."""

    def run(
        self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator
    ) -> AttackResult: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """``extraction`` steals a model, and ``craft`` moves records on it; the target is asked once
    about each moved record.

    ``norm`` None takes that of the data, another one its ball of equal volume.
    """

    name: str = "transfer"
    extraction: Extraction = field(default_factory=PapernotSubstitute)
    craft: PGD = field(default_factory=PGD)
    norm: Norm | None = None
    repeats: int = 1

    def run(self, oracle: Oracle, data: EvasionData, rng: np.random.Generator) -> AttackResult:
        """Steal, craft, judge; "fidelity_test" is the substitute's.

        Raises what the extraction raises, and AbilityError if what it stole has no gradient.
        """
        data = data.within(self.norm)
        stealing = data.require_stealing()
        attempt = EvasionAttempt.start(self.name, oracle, data, repeats=self.repeats)
        extracted = self.extraction.run(oracle, stealing, rng)
        network = as_network(extracted.artifact)
        stream = generator_of(rng)
        best = self.craft.search(network, attempt.inputs, attempt.goal, data.ball, stream)
        return attempt.finish(
            best.inputs,
            rng,
            threat_model=ThreatModel.MALICIOUS_CLIENT,
            notes=(
                f"{extracted.spent.records:,} of the records asked were to steal the substitute by "
                f"{extracted.attack}, whose fidelity is {extracted.metrics['fidelity_test']}",
            ),
            extra={"fidelity_test": extracted.metrics["fidelity_test"]},
        )
