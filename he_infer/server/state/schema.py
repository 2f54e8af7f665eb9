"""The tables. Times are seconds since the epoch; digests are hexadecimal SHA-256."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION: Final = 1
metadata: Final = MetaData()

versions: Final = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

# A budget counts records in a period that starts anew when it is over; no period: for ever.
tenants: Final = Table(
    "tenants",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("created", Float, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("records_limit", BigInteger),
    Column("period_s", Float),
    Column("period_start", Float, nullable=False),
    Column("records_used", BigInteger, nullable=False),
)

tokens: Final = Table(
    "tokens",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("tenant", String(100), nullable=False, index=True),
    Column("created", Float, nullable=False),
    Column("expires", Float),
)

keys: Final = Table(
    "evaluation_keys",
    metadata,
    Column("tenant", String(100), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("params_digest", String(64), nullable=False),
    Column("levels_digest", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    Column("used", Float, nullable=False, index=True),
)

uploads: Final = Table(
    "uploads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(100), nullable=False),
    Column("plan_digest", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("used", Float, nullable=False, index=True),
)

parts: Final = Table(
    "upload_parts",
    metadata,
    Column("upload", String(32), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("name", String(64), nullable=False),
)

# ``reply`` is empty while the request is being answered.
replies: Final = Table(
    "replies",
    metadata,
    Column("tenant", String(100), primary_key=True),
    Column("idempotency_key", String(64), primary_key=True),
    Column("request_digest", String(64), nullable=False),
    Column("reply", LargeBinary),
    Column("evaluate_ms", Float),
    Column("created", Float, nullable=False),
    Index("replies_by_age", "created"),
)

models: Final = Table(
    "models",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("plan_digest", String(64), primary_key=True),
    Column("last_served", Float, nullable=False),
)

audit_log: Final = Table(
    "audit_log",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("entry", Text, nullable=False),
    Column("digest", String(64), nullable=False),
)
