"""What the service remembers between requests: a database, and blobs of evaluation keys."""

from __future__ import annotations

from he_infer.server.state.database import Database, DatabaseError
from he_infer.server.state.state import DATABASE_FILE, State

__all__ = ["DATABASE_FILE", "Database", "DatabaseError", "State"]
