"""One self-contained page from an audit's JSON: ``write_report(audit, path)``."""

from attacks.report.page import render as render
from attacks.report.page import write_report as write_report

__all__ = ["render", "write_report"]
