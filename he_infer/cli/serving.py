"""Commands of an operator: serve, tenants, audit-log, certs."""

from __future__ import annotations

import argparse
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from he_infer.cli.console import print_facts, print_json, print_table
from he_infer.errors import InputError
from he_infer.runtime.backends.choose import AUTO, ENCRYPTED

if TYPE_CHECKING:
    from he_infer.server.state import State

_HEAD: Final = re.compile(r"([0-9]{1,15}):([0-9a-f]{64})")
_PAGE: Final = 1000  # entries of the log read at a time


def add_commands(commands: Any) -> None:
    """Add the parsers to argparse's subparsers."""
    _add_serve(commands)
    _add_tenants(commands)
    _add_audit_log(commands)
    _add_certs(commands)


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="answer encrypted queries for some plans")
    serve.add_argument("plans", type=Path, nargs="+", metavar="PLAN", help="plan files to serve")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    serve.add_argument("--reuse-port", action="store_true", help="share the port while restarting")
    _add_state(serve)
    serve.add_argument(
        "--require-tokens", action="store_true", help="refuse who shows no token or certificate"
    )
    serve.add_argument("--backend", choices=(AUTO, *ENCRYPTED), default=AUTO, help="what evaluates")
    serve.add_argument("--workers", type=int, default=1, help="evaluations at a time")
    serve.add_argument(
        "--threads-per-evaluation", type=int, default=1, help="for backends that can use several"
    )
    serve.add_argument("--queue", type=int, default=8, help="evaluations that may wait")
    serve.add_argument("--worker-memory-gb", type=float, help="most a worker may take")
    serve.add_argument("--key-quota-gb", type=float, help="stored keys of each tenant")
    serve.add_argument("--certificate", type=Path, help="PEM file, for HTTPS")
    serve.add_argument("--private-key", type=Path, help="PEM file, for HTTPS")
    serve.add_argument("--client-authority", type=Path, help="PEM file, for mutual TLS")
    serve.add_argument("--cluster", action="store_true", help="evaluate on a Ray cluster")
    serve.add_argument("--cluster-address", help="of the Ray cluster (default: a local one)")
    serve.set_defaults(run=run_serve)


def _add_tenants(commands: Any) -> None:
    parser = commands.add_parser("tenants", help="who may query, and for how many records")
    _add_state(parser)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="add a tenant and print its first token")
    token = actions.add_parser("token", help="print a new token of a tenant")
    budget = actions.add_parser("budget", help="give a tenant another budget")
    revoke = actions.add_parser("revoke", help="revoke a tenant's tokens")
    disable = actions.add_parser("disable", help="lock a tenant out")
    enable = actions.add_parser("enable", help="let it in again")
    for action in (add, token, budget, revoke, disable, enable):
        action.add_argument("name", help="the tenant's name")
    for action in (add, budget):
        action.add_argument("--records", type=int, help="most records (default: no limit)")
        action.add_argument("--period-hours", type=float, help="after which they are given anew")
    for action in (add, token):
        action.add_argument("--days", type=float, help="that the token is valid")
    listing = actions.add_parser("list", help="all tenants with what is left of their budgets")
    listing.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_tenants)


def _add_audit_log(commands: Any) -> None:
    parser = commands.add_parser("audit-log", help="the service's log of what was answered")
    _add_state(parser)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser("verify", help="check that no entry was altered")
    verify.add_argument("--head", help="COUNT:DIGEST noted before, which must be in the log")
    show = actions.add_parser("show", help="print entries as JSON lines")
    show.add_argument("--since", type=int, default=0, help="number of the entry before the first")
    parser.set_defaults(run=run_audit_log)


def _add_certs(commands: Any) -> None:
    parser = commands.add_parser("certs", help="a certificate authority for development")
    parser.add_argument("folder", type=Path, help="where the authority lies, or is made")
    parser.add_argument(
        "--server", nargs="+", metavar="NAME", help="issue for a server of these names or addresses"
    )
    parser.add_argument("--client", nargs="+", metavar="TENANT", help="issue for these tenants")
    parser.add_argument("--days", type=int, default=397, help="that certificates are valid")
    parser.add_argument("--overwrite", action="store_true", help="replace certificates named here")
    parser.add_argument(
        "--new-authority",
        action="store_true",
        help="replace the authority: nothing that the old one signed is trusted any more",
    )
    parser.set_defaults(run=run_certs)


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, help="folder for keys, tenants and the log")
    parser.add_argument("--database", help="URL of PostgreSQL, instead of SQLite in the folder")
    parser.add_argument("--blobs", help="URL for key bytes, instead of files in the folder")


def run_serve(options: argparse.Namespace) -> int:
    from he_infer.server import Settings, run
    from he_infer.server.state import State
    from he_infer.server.tls import Tls
    from he_infer.server.workers.processes import ProcessPool

    if (options.certificate is None) != (options.private_key is None):
        raise InputError("HTTPS needs both --certificate and --private-key")
    if options.client_authority is not None and options.certificate is None:
        raise InputError("mutual TLS needs --certificate and --private-key as well")
    if options.state is None and (options.database is None) != (options.blobs is None):
        raise InputError("--database and --blobs go together, or give --state for what is missing")
    limits: dict[str, Any] = {}
    if options.worker_memory_gb is not None:
        limits["worker_memory_bytes"] = _bytes("--worker-memory-gb", options.worker_memory_gb)
    if options.key_quota_gb is not None:
        limits["key_quota_bytes"] = _bytes("--key-quota-gb", options.key_quota_gb)
    settings = Settings(
        backend=options.backend,
        workers=options.workers,
        threads_per_evaluation=options.threads_per_evaluation,
        queue=options.queue,
        tokens_required=options.require_tokens or options.client_authority is not None,
        **limits,
    )
    tls = None
    if options.certificate is not None:
        tls = Tls(
            certificate=options.certificate,
            private_key=options.private_key,
            authority=options.client_authority,
        )
    make_pool: Any = ProcessPool
    if options.cluster:
        from he_infer.server.workers.cluster import ClusterPool

        make_pool = partial(ClusterPool, address=options.cluster_address)
    run(
        options.plans,
        host=options.host,
        port=options.port,
        settings=settings,
        open_state=lambda: State.open(
            options.state, database=options.database, blobs=options.blobs
        ),
        tls=tls,
        reuse_port=options.reuse_port,
        make_pool=make_pool,
        on_started=lambda url: print(f"serving at {url}", flush=True),
    )
    return 0


def run_tenants(options: argparse.Namespace) -> int:
    from he_infer.server.state import tenants

    now = time.time()
    if options.action == "list":
        return _list_tenants(options, now)
    printed = None
    with _state(options) as state, state.database.transaction() as connection:
        match options.action:
            case "add" | "token":
                if options.action == "add":
                    tenants.add_tenant(connection, options.name, now=now, **_budget(options))
                lifetime_s = None if options.days is None else options.days * 86400
                printed = tenants.issue_token(
                    connection, options.name, now=now, lifetime_s=lifetime_s
                )
            case "budget":
                tenants.set_budget(connection, options.name, now=now, **_budget(options))
            case "revoke":
                count = tenants.revoke_tokens(connection, options.name)
                printed = f"revoked {count} token(s)"
            case "disable" | "enable":
                tenants.set_active(connection, options.name, options.action == "enable")
    # Outside the transaction: whatever reads our output must not make a server wait.
    if printed is not None:
        print(printed)
    return 0


def _list_tenants(options: argparse.Namespace, now: float) -> int:
    from he_infer.server.state import tenants

    with _state(options) as state, state.database.reading() as connection:
        found = tenants.all_tenants(connection)
    if options.json:
        print_json([_row(tenant, now) for tenant in found])
    else:
        rows = [[str(v) for v in _row(tenant, now).values()] for tenant in found]
        print_table(["tenant", "active", "limit", "left", "period_s"], rows)
    return 0


def run_audit_log(options: argparse.Namespace) -> int:
    from he_infer.server.state import audit_log

    if options.action == "show":
        return _show_audit_log(options)
    noted = None
    if options.head is not None:
        match = _HEAD.fullmatch(options.head)
        if match is None:
            raise InputError("a head is COUNT:DIGEST, as verify prints it")
        noted = audit_log.Head(entries=int(match[1]), digest=match[2])
    with _state(options) as state, state.database.reading() as connection:
        head = audit_log.verify(connection, noted=noted)
    print_facts([("entries", f"{head.entries}, none altered"), ("head", str(head))])
    return 0


def _show_audit_log(options: argparse.Namespace) -> int:
    import json

    from he_infer.server.state import audit_log

    since = options.since
    with _state(options) as state:
        while True:
            with state.database.reading() as connection:
                page = audit_log.entries(connection, since=since, limit=_PAGE)
            for entry in page:
                print(json.dumps(entry))
            if len(page) < _PAGE:
                return 0
            since = page[-1]["sequence"]


def run_certs(options: argparse.Namespace) -> int:
    from he_infer.cli import certificates

    made = []
    # Replacing certificates must not replace the authority, which would end all the others.
    if not (options.folder / "ca.pem").exists() or options.new_authority:
        certificates.make_authority(options.folder, overwrite=options.new_authority)
        made.append(("authority", f"{options.folder / 'ca.pem'}"))
    if options.server:
        certificates.issue_server(
            options.folder, options.server, days=options.days, overwrite=options.overwrite
        )
        made.append(("server", f"{options.folder / 'server.pem'} with server.key"))
    for tenant in options.client or ():
        certificates.issue_client(
            options.folder, tenant, days=options.days, overwrite=options.overwrite
        )
        made.append((f"tenant {tenant}", f"{options.folder / tenant}.pem with {tenant}.key"))
    print_facts(made)
    return 0


def _state(options: argparse.Namespace) -> State:
    from he_infer.server.state import DATABASE_FILE, State

    if options.state is None and options.database is None:
        raise InputError("give --state FOLDER (or --database URL) of the server")
    making = getattr(options, "action", None) == "add"  # a first tenant may come before a server
    if options.database is None and not making and not (options.state / DATABASE_FILE).is_file():
        raise InputError(
            f"{options.state} holds no server's state ({DATABASE_FILE}): give the folder that "
            "serve --state was given"
        )
    blobs = options.blobs or ("memory://" if options.state is None else None)
    return State.open(options.state, database=options.database, blobs=blobs)


def _bytes(option: str, gigabytes: float) -> int:
    if not 0 < gigabytes < 1e9:
        raise InputError(f"{option} {gigabytes}: expected a number of gigabytes above 0")
    return int(gigabytes * 1e9)


def _budget(options: argparse.Namespace) -> dict[str, Any]:
    hours = options.period_hours
    return {
        "records_limit": options.records,
        "period_s": None if hours is None else hours * 3600,
    }


def _row(tenant: Any, now: float) -> dict[str, Any]:
    return {
        "tenant": tenant.name,
        "active": tenant.active,
        "limit": tenant.records_limit,
        "left": tenant.left(now),
        "period_s": tenant.period_s,
    }
