"""The PEM files of a TLS server, checked before anything else is started."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from he_infer.errors import ParameterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files: the server's ``certificate`` chain and ``private_key``; with ``authority``,
    clients must show a certificate that it signed, whose common name is their tenant's."""

    certificate: Path
    private_key: Path
    authority: Path | None = None

    def check(self) -> None:
        """Raise ParameterError naming the file that a TLS server cannot use."""
        for path in (self.certificate, self.private_key, self.authority):
            try:
                if path is not None:
                    path.read_bytes()
            except OSError as error:
                raise ParameterError(f"cannot read {path}: {error.strerror}") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # An encrypted key would make OpenSSL ask on the terminal.
            context.load_cert_chain(self.certificate, self.private_key, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise ParameterError(
                f"{self.certificate} and {self.private_key} are no certificate with its key "
                f"({_reason(error)}): give PEM files, the key unencrypted"
            ) from error
        if self.authority is not None:
            try:
                context.load_verify_locations(cafile=self.authority)
            except (OSError, ValueError) as error:
                raise ParameterError(
                    f"{self.authority} holds no certificate of an authority ({_reason(error)}): "
                    "give a PEM file"
                ) from error

    @property
    def options(self) -> dict[str, Any]:
        """What uvicorn calls them."""
        options: dict[str, Any] = {
            "ssl_certfile": str(self.certificate),
            "ssl_keyfile": str(self.private_key),
        }
        if self.authority is not None:
            options |= {"ssl_ca_certs": str(self.authority), "ssl_cert_reqs": ssl.CERT_REQUIRED}
        return options


def _reason(error: Exception) -> str:
    found = getattr(error, "reason", None) or "not PEM"
    return str(found).lower().replace("_", " ")
