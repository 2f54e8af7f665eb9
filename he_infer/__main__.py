"""``python -m he_infer`` is the command ``he-infer``."""

from he_infer.cli.main import entry

entry()
