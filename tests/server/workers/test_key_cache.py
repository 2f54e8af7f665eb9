"""The cache of loaded keys: quota, order of eviction, time to live."""

from __future__ import annotations

import pytest

from he_infer.server.state.key_index import KeyName
from he_infer.server.workers.key_cache import KeyCache


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
def cache(clock: Clock) -> KeyCache[str]:
    return KeyCache(quota_bytes=100, ttl_s=10.0, clock=clock)


def test_the_least_recently_used_leaves_first(cache: KeyCache[str]) -> None:
    cache.put(name("a"), "A", size_bytes=40)
    cache.put(name("b"), "B", size_bytes=40)
    assert cache.get(name("a")) == "A"
    cache.put(name("c"), "C", size_bytes=40)
    assert [cache.get(name(x)) for x in "abc"] == ["A", None, "C"]
    cache.put(name("d"), "D", size_bytes=100)
    assert [cache.get(name(x)) for x in "acd"] == [None, None, "D"]


def test_unused_keys_expire(cache: KeyCache[str], clock: Clock) -> None:
    cache.put(name("a"), "A", size_bytes=10)
    clock.now = 9.0
    assert cache.get(name("a")) == "A"  # a use
    clock.now = 18.0
    assert cache.get(name("a")) == "A"
    clock.now = 30.0
    assert cache.get(name("a")) is None


def test_keys_larger_than_the_whole_cache_evict_nothing(cache: KeyCache[str]) -> None:
    cache.put(name("a"), "A", size_bytes=40)
    cache.put(name("b"), "B", size_bytes=101)
    assert [cache.get(name(x)) for x in "ab"] == ["A", None]


def test_the_first_value_under_a_name_stays(cache: KeyCache[str]) -> None:
    cache.put(name("a"), "A", size_bytes=60)
    cache.put(name("a"), "again", size_bytes=60)
    assert cache.get(name("a")) == "A"
    cache.put(name("b"), "B", size_bytes=40)  # the bytes of one value were counted
    assert cache.get(name("a")) == "A"


def test_keys_are_bound_to_parameters_and_the_list_of_keys(cache: KeyCache[str]) -> None:
    cache.put(name("a"), "A", size_bytes=1)
    assert cache.get(KeyName(digest="a", params_digest="q", levels_digest="1")) is None
    assert cache.get(KeyName(digest="a", params_digest="p", levels_digest="1, 2")) is None
