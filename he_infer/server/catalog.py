"""Names and versions of the models that are served.

A client that asks for a version that was replaced is told so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from he_infer.errors import ParameterError
from he_infer.server.refusal import Refusal
from he_infer.server.workers.hosting import HostFacts
from he_infer.wire.protocol import NAME, version_of


class Catalog:
    """Several models, and several versions of each; the last one given is a name's default.

    ``before``: (name, plan digest) pairs that were served once. Raises ParameterError for a
    name that cannot stand in an address, or a plan given twice.
    """

    def __init__(self, facts: Sequence[HostFacts], *, before: Iterable[tuple[str, str]]) -> None:
        self._versions: dict[str, dict[str, HostFacts]] = {}
        for fact in facts:
            if not NAME.fullmatch(fact.name):
                raise ParameterError(
                    "a served model's name needs 1 to 100 letters, digits, dots, dashes, "
                    f"underscores: got {fact.name!r}"
                )
            versions = self._versions.setdefault(fact.name, {})
            if fact.version in versions:
                raise ParameterError(f'the plan "{fact.name}" is given twice: serve it once')
            versions[fact.version] = fact
        served = {(fact.name, fact.plan_digest) for fact in facts}
        self._retired = set(before) - served

    @property
    def names(self) -> list[str]:
        return sorted(self._versions)

    def versions(self, name: str) -> list[HostFacts]:
        """All versions of a model, the default one last; raises Refusal 404."""
        found = self._versions.get(name)
        if found is None:
            raise Refusal(404, "unknown_model", "no model of this name is served here")
        return list(found.values())

    def find(self, name: str, version: str | None = None) -> HostFacts:
        """A version of a model; raises Refusal 404, or 410 for one that was served before."""
        versions = self.versions(name)
        if version is None:
            return versions[-1]
        for fact in versions:
            if fact.version == version:
                return fact
        if any(n == name and version_of(d) == version for n, d in self._retired):
            raise _replaced()
        raise Refusal(404, "unknown_version", "no such version of this model is served")

    def of_plan(self, name: str, plan_digest: str, version: str | None) -> HostFacts:
        """The version that a query was made for; raises Refusal 409, or 410 if it is gone.

        With ``version`` the address names one, and the query must be for that one.
        """
        for fact in [self.find(name, version)] if version else self.versions(name):
            if fact.plan_digest == plan_digest:
                return fact
        if (name, plan_digest) in self._retired:
            raise _replaced()
        raise Refusal(409, "wrong_plan", "this query was made for another plan: fetch the metadata")


def _replaced() -> Refusal:
    return Refusal(
        410, "plan_replaced", "this model was replaced by another version: fetch the metadata again"
    )
