"""Tenants, budgets, replies, keys and the audit log, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from he_infer.errors import ParameterError
from he_infer.server.state import (
    Database,
    DatabaseError,
    State,
    audit_log,
    key_index,
    replies,
    served,
    tenants,
)
from he_infer.server.state.audit_log import AuditLog, BrokenHashChainError, Head
from he_infer.server.state.key_index import KeyName, StoreFullError, Upload
from he_infer.server.state.replies import InProgressError, OtherRequestError
from he_infer.server.state.tenants import BudgetSpentError
from tests.server.databases import postgresql

NAME = KeyName(digest="d" * 64, params_digest="p" * 64, levels_digest="l" * 64)


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'state.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("server_url")
    made = Database(url)
    yield made
    if request.param == "postgresql":
        with made.transaction() as c:
            for table in ("tenants", "tokens", "replies", "evaluation_keys", "uploads"):
                c.execute(text(f"DELETE FROM {table}"))
            for table in ("upload_parts", "audit_log", "models"):
                c.execute(text(f"DELETE FROM {table}"))
    made.close()


def test_tokens_let_in_until_they_expire_or_are_revoked(database: Database) -> None:
    with database.transaction() as c:
        tenants.add_tenant(c, "acme", now=0.0)
        token = tenants.issue_token(c, "acme", now=0.0, lifetime_s=10.0)
        found = tenants.tenant_of_token(c, token, now=5.0)
        assert found is not None and found.name == "acme"
        assert tenants.tenant_of_token(c, token, now=11.0) is None
        assert tenants.tenant_of_token(c, token[:-1] + "x", now=5.0) is None
        assert tenants.tenant_of_token(c, "'; DROP TABLE tokens; --", now=5.0) is None
        other = tenants.issue_token(c, "acme", now=0.0)
        tenants.set_active(c, "acme", False)
        assert tenants.tenant_of_token(c, other, now=5.0) is None
        tenants.set_active(c, "acme", True)
        assert tenants.revoke_tokens(c, "acme", keep=other) == 1
        assert tenants.tenant_of_token(c, other, now=5.0) is not None
        rows = c.execute(text("SELECT digest FROM tokens")).all()
    assert [row[0] for row in rows] == [hashlib.sha256(other.encode()).hexdigest()]


def test_budgets_count_records_and_are_renewed(database: Database) -> None:
    with database.transaction() as c:
        tenants.add_tenant(c, "acme", now=0.0, records_limit=100, period_s=60.0)
        first = tenants.charge(c, "acme", 64, now=1.0)
        with pytest.raises(BudgetSpentError, match="36 are left") as spent:
            tenants.charge(c, "acme", 64, now=2.0)
        assert spent.value.retry_after_s == 59
        tenants.refund(c, "acme", 64, period_start=first)
        tenants.charge(c, "acme", 100, now=3.0)
        tenants.charge(c, "acme", 64, now=61.0)
        found = tenants.find_tenant(c, "acme")
        assert found is not None and found.left(61.0) == 36
        # What was charged to the period before is not given back to this one.
        tenants.refund(c, "acme", 64, period_start=first)
        found = tenants.find_tenant(c, "acme")
        assert found is not None and found.left(61.0) == 36
        with pytest.raises(BudgetSpentError) as never:
            tenants.charge(c, "acme", 101, now=62.0)
        assert never.value.retry_after_s is None
        with pytest.raises(BudgetSpentError):
            tenants.charge(c, "nobody", 1, now=0.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "a b"},
        {"name": ""},
        {"name": "acme", "records_limit": -1},
        {"name": "acme", "period_s": 60.0},
        {"name": "acme", "records_limit": 1, "period_s": 0.0},
    ],
)
def test_bad_tenants_are_refused(database: Database, bad: dict[str, object]) -> None:
    with database.transaction() as c, pytest.raises(ParameterError):
        tenants.add_tenant(c, now=0.0, **bad)  # type: ignore[arg-type]


def test_budgets_hold_under_concurrent_charges(database: Database) -> None:
    with database.transaction() as c:
        tenants.add_tenant(c, "acme", now=0.0, records_limit=50)
    outcomes: list[bool] = []

    def spend() -> None:
        for _ in range(10):
            try:
                with database.transaction() as c:
                    tenants.charge(c, "acme", 1, now=1.0)
                outcomes.append(True)
            except BudgetSpentError:
                outcomes.append(False)

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (outcomes.count(True), outcomes.count(False)) == (50, 30)


def test_a_reply_is_kept_for_the_same_bytes_only(database: Database) -> None:
    def begin(digest: str, now: float) -> replies.Answer | None:
        with database.transaction() as c:
            return replies.begin(c, "acme", "k" * 16, digest, now=now, timeout_s=10.0)

    assert begin("a" * 64, 0.0) is None
    with pytest.raises(InProgressError):
        begin("a" * 64, 1.0)
    assert begin("a" * 64, 20.0) is None  # whoever reserved it has died
    kept_reply = replies.Answer(reply=b"reply", evaluate_ms=1.5)
    with database.transaction() as c:
        replies.keep(c, "acme", "k" * 16, kept_reply, now=21.0, most=10)
    kept = begin("a" * 64, 22.0)
    assert kept is not None and (kept.reply, kept.evaluate_ms) == (b"reply", 1.5)
    with pytest.raises(OtherRequestError):
        begin("b" * 64, 22.0)
    with database.transaction() as c:
        replies.expire(c, before=30.0)
    assert begin("b" * 64, 31.0) is None
    with database.transaction() as c:
        replies.forget(c, "acme", "k" * 16)
    assert begin("c" * 64, 31.0) is None


def test_kept_replies_are_bounded_whatever_their_keys(database: Database) -> None:
    # One in eight prunes: that 128 in a row do not has a probability of 4e-8.
    kept_reply = replies.Answer(reply=b"r", evaluate_ms=1.0)
    for index in range(200):
        key = f"{index:015x}1"
        with database.transaction() as c:
            replies.begin(c, "acme", key, "a" * 64, now=index, timeout_s=10.0)
            replies.keep(c, "acme", key, kept_reply, now=index, most=8)
    with database.transaction() as c:
        count = c.scalar(text("SELECT count(*) FROM replies"))
    assert count is not None and count <= 8 + 128


def test_keys_leave_in_the_order_least_recently_used(database: Database) -> None:
    def name(letter: str) -> KeyName:
        return KeyName(digest=letter * 64, params_digest="p" * 64, levels_digest="l" * 64)

    with database.transaction() as c:
        for age, letter in enumerate("abc"):
            key_index.add_keys(c, "acme", name(letter), 40, now=float(age))
        assert key_index.find_keys(c, "acme", name("a"), now=50.0, ttl_s=100.0)
        assert not key_index.find_keys(c, "other", name("a"), now=50.0, ttl_s=100.0)
        assert not key_index.find_keys(c, "acme", name("b"), now=500.0, ttl_s=100.0)
        gone = key_index.make_room(c, "acme", 40, quota_bytes=120, pinned=["b" * 64])
        assert gone == ["c" * 64]
        with pytest.raises(StoreFullError):
            key_index.make_room(c, "acme", 100, quota_bytes=120, pinned=["a" * 64, "b" * 64])
        assert key_index.stored(c) == (2, 80)
        assert key_index.expired_keys(c, before=20.0) == [("acme", "b" * 64)]


def test_pieces_of_an_upload_come_in_order(database: Database) -> None:
    upload = Upload(id="1" * 32, tenant="acme", plan_digest="p" * 64, bytes=10, received=0)
    with database.transaction() as c:
        key_index.begin_upload(c, upload, now=0.0)
        assert key_index.add_part(c, upload, start=0, size=4, name="x", now=1.0)
        assert not key_index.add_part(c, upload, start=0, size=4, name="y", now=1.0)
        found = key_index.find_upload(c, "acme", upload.id)
        assert found is not None and found.received == 4
        assert key_index.find_upload(c, "other", upload.id) is None
        assert key_index.add_part(c, found, start=4, size=6, name="z", now=2.0)
        assert key_index.parts_of(c, upload.id) == ["x", "z"]
        assert key_index.expired_uploads(c, before=5.0) == ["x", "z"]
        assert key_index.find_upload(c, "acme", upload.id) is None


def test_the_log_is_a_hash_chain(database: Database) -> None:
    log = AuditLog()
    with database.transaction() as c:
        for index in range(5):
            log.append(c, "answered", {"n": index}, now=float(index))
        head = audit_log.verify(c)
        assert head.entries == 5
        assert [entry["n"] for entry in audit_log.entries(c, since=3)] == [3, 4]
        assert audit_log.verify(c, noted=head) == head
        with pytest.raises(BrokenHashChainError, match="cut or rewritten"):
            audit_log.verify(c, noted=Head(entries=6, digest="0" * 64))


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (
            "UPDATE audit_log SET entry = replace(entry, 'answer', 'refuse') WHERE sequence = 3",
            3,
        ),
        ("DELETE FROM audit_log WHERE sequence = 2", 2),
        ("UPDATE audit_log SET digest = '" + "0" * 64 + "' WHERE sequence = 5", 5),
    ],
)
def test_an_altered_entry_is_named(database: Database, change: str, first: int) -> None:
    log = AuditLog()
    with database.transaction() as c:
        for index in range(5):
            log.append(c, "answered", {"n": index}, now=float(index))
        c.execute(text(change))
        with pytest.raises(BrokenHashChainError) as broken:
            audit_log.verify(c)
    assert broken.value.sequence == first


def test_appends_from_several_connections_make_one_hash_chain(database: Database) -> None:
    log = AuditLog()

    def write() -> None:
        for index in range(10):
            with database.transaction() as c:
                log.append(c, "answered", {"n": index}, now=0.0)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.transaction() as c:
        assert audit_log.verify(c).entries == 40


def test_the_hash_chain_survives_roll_backs_and_what_others_wrote(
    database: Database,
) -> None:
    def append(to: Database, log: AuditLog, event: str) -> None:
        with to.transaction() as c:
            log.append(c, event, {}, now=0.0)

    mine, others = AuditLog(), AuditLog()
    append(database, mine, "first")
    with pytest.raises(RuntimeError, match="changed its mind"), database.transaction() as c:
        mine.append(c, "never", {}, now=0.0)
        raise RuntimeError("changed its mind")
    other = Database(database._engine.url.render_as_string(hide_password=False))
    # With the number that the other one has written down.
    append(other, others, "of another process")
    append(database, mine, "second")
    append(other, others, "third")
    other.close()
    with database.transaction() as c:
        assert audit_log.verify(c).entries == 4
        events = [entry["event"] for entry in audit_log.entries(c)]
        c.execute(text("DELETE FROM audit_log"))
    assert events == ["first", "of another process", "second", "third"]
    append(database, mine, "anew")
    with database.transaction() as c:
        assert audit_log.verify(c).entries == 1


def test_reading_excludes_no_writer_and_sees_one_state(database: Database) -> None:
    log = AuditLog()

    def write() -> None:
        with database.transaction() as c:
            log.append(c, "answered", {}, now=0.0)

    write()
    with database.reading() as c:
        assert audit_log.verify(c).entries == 1
        write()
        assert audit_log.verify(c).entries == 1
    with database.reading() as c:
        assert audit_log.verify(c).entries == 2


def test_models_served_before_are_remembered(database: Database) -> None:
    with database.transaction() as c:
        served.note_served(c, [("m", "a" * 64), ("m", "b" * 64)], now=0.0)
        served.note_served(c, [("m", "a" * 64)], now=1.0)
        assert served.ever_served(c) == {("m", "a" * 64), ("m", "b" * 64)}


@pytest.mark.parametrize("url", ["", "mysql://x/y", "nonsense", "sqlite:///no/such/folder/x"])
def test_bad_addresses_are_typed_errors(url: str) -> None:
    with pytest.raises((ParameterError, DatabaseError)):
        Database(url)


def test_a_temporary_state_goes_when_it_is_closed() -> None:
    with State.open() as state:
        folder = Path(state.blobs.url).parent
        assert folder.exists() and folder.stat().st_mode & 0o077 == 0
        assert asyncio.run(state.database.run(lambda c: 1)) == 1
    assert not folder.exists()


def test_another_version_of_the_tables_is_refused(tmp_path: Path) -> None:
    with State.open(tmp_path) as state, state.database.transaction() as c:
        c.execute(text("UPDATE schema_version SET version = 99"))
    with pytest.raises(DatabaseError, match="version 99"):
        State.open(tmp_path)
