"""The machine is described in words and numbers that JSON can hold."""

from __future__ import annotations

import json

from he_infer.runtime.machine import inspect_machine


def test_the_machine_is_described() -> None:
    machine = inspect_machine()
    assert machine.tenseal_is_safe and machine.cores >= 1
    assert machine.data["mnist/test"] == "in the package"
    assert json.loads(json.dumps(machine.to_json()))["tenseal"] == machine.tenseal
