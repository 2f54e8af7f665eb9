"""The key store: quota, order of eviction, time to live, pins."""

from __future__ import annotations

import pytest

from he_infer.server.workers.key_cache import KeyName, KeyStore, StoreFullError, UnknownKeysError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def name(text: str) -> KeyName:
    return KeyName(digest=text, params_digest="p", levels_digest="1")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> KeyStore[str]:
    return KeyStore(quota_bytes=100, ttl_s=10.0, clock=clock)


def test_the_least_recently_used_leaves_first(store: KeyStore[str]) -> None:
    store.put(name("a"), "A", size_bytes=40)
    store.put(name("b"), "B", size_bytes=40)
    assert store.contains(name("a"))
    store.put(name("c"), "C", size_bytes=40)
    assert [store.contains(name(x)) for x in "abc"] == [True, False, True]
    assert store.held_bytes == 80


def test_unused_keys_expire(store: KeyStore[str], clock: Clock) -> None:
    store.put(name("a"), "A", size_bytes=10)
    clock.now = 9.0
    assert store.contains(name("a"))  # a use
    clock.now = 18.0
    assert len(store) == 1
    clock.now = 30.0
    with pytest.raises(UnknownKeysError), store.pinned(name("a")):
        pass


def test_pinned_keys_stay_and_their_bytes_count(store: KeyStore[str], clock: Clock) -> None:
    store.put(name("a"), "A", size_bytes=70)
    with store.pinned(name("a")) as value:
        assert value == "A"
        clock.now = 1000.0
        with pytest.raises(StoreFullError):
            store.put(name("b"), "B", size_bytes=40)
        assert store.delete(name("a"))
        assert not store.contains(name("a"))
        assert store.held_bytes == 70
        with pytest.raises(StoreFullError):
            store.put(name("b"), "B", size_bytes=40)
    assert store.held_bytes == 0
    store.put(name("b"), "B", size_bytes=40)


def test_two_pins_release_once(store: KeyStore[str]) -> None:
    store.put(name("a"), "A", size_bytes=70)
    with store.pinned(name("a")), store.pinned(name("a")):
        store.delete(name("a"))
    assert store.held_bytes == 0


def test_a_refused_entry_evicts_nothing(store: KeyStore[str]) -> None:
    store.put(name("a"), "A", size_bytes=40)
    with pytest.raises(StoreFullError):
        store.put(name("b"), "B", size_bytes=101)
    assert store.contains(name("a"))


def test_keys_are_bound_to_parameters_and_the_list_of_keys(store: KeyStore[str]) -> None:
    store.put(name("a"), "A", size_bytes=1)
    assert not store.contains(KeyName(digest="a", params_digest="q", levels_digest="1"))
    assert not store.contains(KeyName(digest="a", params_digest="p", levels_digest="1, 2"))
