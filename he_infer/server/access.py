"""Who is asking: the holder of a token or of a client certificate, or the anonymous tenant."""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy.engine import Connection
from starlette.requests import Request

from he_infer.server.refusal import Refusal
from he_infer.server.state import State, tenants
from he_infer.server.state.tenants import ANONYMOUS, Tenant

CERTIFICATE_NAME: Final = "certificate_name"  # in the scope's state, put there by the protocol
_SCHEME: Final = "bearer "


class Access:
    """Finds the tenant of a request by its token or certificate.

    If a request shows both they must name the same tenant.

    ``required``: whether requests that show neither are refused.
    """

    def __init__(self, state: State, *, required: bool) -> None:
        self._state = state
        self._required = required

    async def tenant(self, request: Request) -> Tenant:
        """Raises Refusal 401 without or with bad credentials, 403 if they contradict."""
        credentials = self.credentials(request)
        return await self._state.database.run(lambda c: self.find(c, *credentials))

    def credentials(self, request: Request) -> tuple[str | None, str | None]:
        """Token and certificate name that came with a request.

        Raises Refusal 401 for a header that holds no token, and where one is required and
        neither is shown.
        """
        header = request.headers.get("authorization")
        token = None
        if header is not None:
            if not header.lower().startswith(_SCHEME):
                raise _unauthenticated("expected an Authorization header of the form Bearer TOKEN")
            token = header[len(_SCHEME) :].strip()
        certificate = request.scope["state"].get(CERTIFICATE_NAME)
        if self._required and token is None and certificate is None:
            raise _no_token()
        return token, certificate

    def find(self, connection: Connection, token: str | None, certificate: str | None) -> Tenant:
        """The tenant of these credentials, in a transaction; raises as ``tenant``."""
        found = None
        if token is not None:
            found = tenants.tenant_of_token(connection, token, now=time.time())
            if found is None:
                raise _unauthenticated("this token is unknown, expired or revoked")
        if certificate is not None:
            named = tenants.find_tenant(connection, certificate)
            if named is None or not named.active:
                raise _unauthenticated("no tenant of this certificate's name is let in")
            if found is not None and found.name != named.name:
                raise Refusal(403, "two_tenants", "token and certificate name different tenants")
            found = named
        if found is None and not self._required:
            found = tenants.find_tenant(connection, ANONYMOUS)
        if found is None or not found.active:
            raise _no_token()
        return found


def ensure_anonymous(connection: Connection) -> None:
    """Make the tenant that requests without credentials belong to."""
    if tenants.find_tenant(connection, ANONYMOUS) is None:
        tenants.add_tenant(connection, ANONYMOUS, now=time.time())


def _no_token() -> Refusal:
    return _unauthenticated("send a token: Authorization: Bearer TOKEN")


def _unauthenticated(message: str) -> Refusal:
    return Refusal(401, "unauthenticated", message)
