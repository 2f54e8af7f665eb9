"""The page at ``/``: what is served, how busy it is, and what is left of one's own budget."""

from __future__ import annotations

import base64
import hashlib
import html
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Final

from he_infer.server.service import InferenceService
from he_infer.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """``policy``: the Content-Security-Policy that lets exactly this page's own parts run."""

    html: str
    policy: str


_ASSETS: Final = resources.files("he_infer.server.routes") / "assets"
_STYLE: Final = (_ASSETS / "status_page.css").read_text("utf-8")
_SCRIPT: Final = (_ASSETS / "status_page.js").read_text("utf-8")
_PAGE: Final = Template((_ASSETS / "status_page.html").read_text("utf-8"))


def render(service: InferenceService, *, uptime_s: float) -> Page:
    """The page as it is now."""
    load = service.workers.load
    state = "draining" if service.draining else "ready" if service.ready else "not ready"
    rows = "".join(
        "<tr>"
        f"<th scope='row'>{html.escape(fact.name)}</th><td><code>{fact.version}</code></td>"
        f"<td class='number'>{fact.records}</td><td class='number'>{fact.query_bytes:,}</td>"
        f"<td class='number'>{fact.keys_bytes:,}</td></tr>"
        for name in service.catalog.names
        for fact in service.catalog.versions(name)
    )
    text = _PAGE.substitute(
        state=state,
        version=__version__,
        style=_STYLE,
        script=_SCRIPT,
        uptime=_duration(uptime_s),
        rows=rows,
        busy=load.busy,
        workers=load.workers,
        waiting=load.waiting,
        queue=service.settings.queue,
        restarts=load.restarts,
    )
    policy = (
        "default-src 'none'; connect-src 'self'; form-action 'none'; base-uri 'none'; "
        f"frame-ancestors 'none'; style-src '{_hash(_STYLE)}'; script-src '{_hash(_SCRIPT)}'"
    )
    return Page(html=text, policy=policy)


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
