"""The page at ``/``: what is served, how busy it is, and what is left of one's own budget."""

from __future__ import annotations

import base64
import hashlib
import html
from dataclasses import dataclass
from typing import Final

from he_infer.server.service import InferenceService
from he_infer.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """``policy``: the Content-Security-Policy that lets exactly this page's own parts run."""

    html: str
    policy: str


_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #8884; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .9em; } .soft { opacity: .75; }
label, input, button { font: inherit; } input { width: 24rem; max-width: 100%; }
output { display: block; margin-top: .5rem; }
"""

# The token stays in the page: it is sent to this server only, and kept nowhere.
_SCRIPT: Final = """
document.getElementById('budget').addEventListener('submit', async (event) => {
  event.preventDefault();
  const shown = document.getElementById('left');
  const token = document.getElementById('token').value.trim();
  try {
    const reply = await fetch('/v2/budget',
      {headers: token ? {authorization: 'Bearer ' + token} : {}});
    const data = await reply.json();
    if (!reply.ok) { shown.textContent = data.error; return; }
    const left = data.records_left === null ? 'no limit'
      : data.records_left + ' of ' + data.records_limit + ' records left';
    const resets = data.resets_in_s === null ? ''
      : ', renewed in ' + Math.ceil(data.resets_in_s / 60) + ' min';
    shown.textContent = data.tenant + ': ' + left + resets;
  } catch (error) { shown.textContent = 'the server does not answer'; }
});
"""


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
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>he-infer: {state}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{_STYLE}</style></head><body>
<h1>he-infer {__version__} is <span id="state">{state}</span></h1>
<p class="soft">This server answers queries that it cannot read. Up for {_duration(uptime_s)}.</p>
<h2>Models</h2>
<table id="models"><thead><tr><th>model</th><th>version</th><th class="number">records a query</th>
<th class="number">query bytes</th><th class="number">key bytes</th></tr></thead>
<tbody>{rows}</tbody></table>
<h2>Load</h2>
<table id="load"><tbody>
<tr><th scope="row">workers busy</th><td class="number">{load.busy} of {load.workers}</td></tr>
<tr><th scope="row">queries waiting</th>
<td class="number">{load.waiting} of {service.settings.queue}</td></tr>
<tr><th scope="row">workers replaced</th><td class="number">{load.restarts}</td></tr>
</tbody></table>
<h2>Your budget</h2>
<form id="budget"><label for="token">Token (leave empty if you have none)</label><br>
<input id="token" type="password" autocomplete="off"> <button>Show</button>
<output id="left" for="token"></output></form>
<p class="soft">For programs: <a href="/v2/models">models</a>, <a href="/metrics">metrics</a>,
<a href="/openapi.json">OpenAPI</a>.</p>
<script>{_SCRIPT}</script></body></html>
"""
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
