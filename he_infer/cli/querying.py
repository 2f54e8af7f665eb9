"""Commands of a client: keygen, query."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from he_infer.cli.console import megabytes, print_facts, print_json, progress_bars
from he_infer.errors import InputError, KeyFileError

if TYPE_CHECKING:
    from he_infer.client.transport import HttpTransport
    from he_infer.keys.evaluation import EvaluationKeys
    from he_infer.keys.secret import SecretKeys
    from he_infer.plan.client_spec import ClientSpec

PUBLIC_SUFFIX: Final = ".public"
TOKEN_VARIABLE: Final = "HE_INFER_TOKEN"
DEFAULT_SERVER: Final = "http://127.0.0.1:8000"


def add_commands(commands: Any) -> None:
    """Add the two parsers to argparse's subparsers."""
    keygen = commands.add_parser("keygen", help="make a client's keys for a model")
    source = keygen.add_mutually_exclusive_group(required=True)
    source.add_argument("--plan", type=Path, help="plan file that the keys are for")
    source.add_argument("--server", help="address of a server to ask, with --model")
    keygen.add_argument("--model", help="the model's name on the server")
    add_connection(keygen)
    keygen.add_argument("--out", type=Path, required=True, help="key file to write")
    keygen.add_argument("--overwrite", action="store_true", help="replace keys that are there")
    _add_common(keygen)
    keygen.set_defaults(run=run_keygen)

    query = commands.add_parser("query", help="encrypt records, ask a server, decrypt the answers")
    query.add_argument("input", type=Path, help=".npy with records along the first axis")
    query.add_argument("--server", default=DEFAULT_SERVER, help="address of the server")
    query.add_argument("--model", required=True, help="the model's name on the server")
    add_connection(query)
    query.add_argument("--key", type=Path, help="key file (default: fresh keys for this query)")
    query.add_argument("--plan-digest", help="refuse a server that runs another plan")
    query.add_argument("--strict", action="store_true", help="refuse values outside the range")
    _add_common(query)
    query.set_defaults(run=run_query)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--passphrase-file", type=Path, help="that holds the key file's passphrase")
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Options that say who asks, and whom to trust."""
    parser.add_argument(
        "--token-file", type=Path, help=f"token to show (default: {TOKEN_VARIABLE} if set)"
    )
    parser.add_argument("--authority", type=Path, help="PEM file of the authority to trust")
    parser.add_argument("--certificate", type=Path, help="PEM file, to show to the server")
    parser.add_argument("--private-key", type=Path, help="PEM file of the certificate's key")


def open_transport(options: argparse.Namespace) -> HttpTransport:
    """A connection as the options say."""
    from he_infer.client.transport import HttpTransport

    if (options.certificate is None) != (options.private_key is None):
        raise InputError("a client certificate needs both --certificate and --private-key")
    token = os.environ.get(TOKEN_VARIABLE) or None  # empty is how some tools unset it
    if options.token_file is not None:
        try:
            token = options.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read a token from {options.token_file}") from error
    pair = None
    if options.certificate is not None:
        pair = (options.certificate, options.private_key)
    return HttpTransport(options.server, authority=options.authority, token=token, certificate=pair)


def run_keygen(options: argparse.Namespace) -> int:
    from he_infer.cli.sources import read_passphrase
    from he_infer.keys.secret import SecretKeys

    spec = _spec(options)
    public = public_file(options.out)
    if public.exists() and not options.overwrite:
        raise KeyFileError(f"{public} exists: choose another name or give --overwrite")
    passphrase = read_passphrase(options.passphrase_file, confirm=True)
    with progress_bars() as progress:
        secret = SecretKeys.generate(spec.params, progress=progress)
        evaluation = secret.evaluation_keys(spec.key_levels, progress=progress)
    secret.save(options.out, passphrase, overwrite=options.overwrite)
    data = evaluation.to_bytes()
    public.write_bytes(data)
    if options.json:
        print_json(
            {
                "key_file": str(options.out),
                "public_file": str(public),
                "public_bytes": len(data),
                "keys_digest": evaluation.digest,
                "params_digest": spec.params.digest,
            }
        )
        return 0
    print_facts(
        [
            ("secret key", f"{options.out} (encrypted; keep it, and its passphrase)"),
            ("evaluation keys", f"{public}, {megabytes(len(data))} (public; uploaded on use)"),
            ("digest", evaluation.digest),
        ]
    )
    return 0


def run_query(options: argparse.Namespace) -> int:
    from he_infer.cli.sources import load_array, read_passphrase
    from he_infer.client.client import Client
    from he_infer.keys.secret import SecretKeys

    records = load_array(options.input)
    secret = None
    if options.key is not None:
        secret = SecretKeys.load(
            options.key, read_passphrase(options.passphrase_file, confirm=False)
        )
    with open_transport(options) as transport, progress_bars() as progress:
        client = Client.connect(
            transport,
            model=options.model,
            keys=secret,
            plan_digest=options.plan_digest,
            strict=options.strict,
            progress=progress,
        )
        stored = None if secret is None else _stored_keys(options.key, secret, client.spec)
        if stored is not None:
            client.use_evaluation_keys(stored)
        answer = client.predict(records)
        if stored is None:
            client.delete_keys()  # the next query makes others, so nobody needs these again
    if options.json:
        print_json(
            {
                "labels": answer.labels.tolist(),
                "logits": answer.logits.tolist(),
                "queries": answer.queries,
                "bytes_sent": answer.bytes_sent,
                "bytes_received": answer.bytes_received,
                "encrypt_ms": answer.timings.encrypt_ms,
                "exchange_ms": answer.timings.exchange_ms,
                "decrypt_ms": answer.timings.decrypt_ms,
            }
        )
        return 0
    for index, (label, logits) in enumerate(zip(answer.labels, answer.logits, strict=True)):
        print(f"{index}\t{label}\t{' '.join(f'{value:.4f}' for value in logits)}")
    return 0


def public_file(key_file: Path) -> Path:
    """Where the evaluation keys of a key file lie: beside it."""
    return key_file.with_name(key_file.name + PUBLIC_SUFFIX)


def _stored_keys(key_file: Path, secret: SecretKeys, spec: ClientSpec) -> EvaluationKeys | None:
    """The evaluation keys that keygen wrote, so that a server that has them need not be sent any.

    Raises WireError if the file was made for another model or altered.
    """
    from he_infer.keys.evaluation import EvaluationKeys

    path = public_file(key_file)
    if not path.exists():
        return None
    return EvaluationKeys.from_bytes(
        path.read_bytes(), params=secret.params, levels=spec.key_levels
    )


def _spec(options: argparse.Namespace) -> ClientSpec:
    if options.plan is not None:
        from he_infer.plan.file import load_plan

        return load_plan(options.plan).client_spec
    if options.model is None:
        raise InputError("--server needs --model NAME as well")
    from he_infer.client.messages import fetch_spec

    with open_transport(options) as transport:
        return fetch_spec(transport, options.model)
