"""Watching the others of a job: who learns of which failure, and which end is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
import torch.distributed as dist

from streampetr_vit.engine import group
from streampetr_vit.engine.failures import LostProcessError
from streampetr_vit.engine.place import Place
from streampetr_vit.engine.watch import Watch
from streampetr_vit.errors import InputError

NAMES = ["rank 0 on a", "rank 1 on b", "rank 2 on b"]
QUICK = dict(look_s=0.05, silent_s=1.5, grace_s=0.2)


@pytest.fixture
def store() -> dist.Store:
    return dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)


@pytest.fixture
def watching(store: dist.Store) -> Callable[..., tuple[Watch, list[str]]]:
    """Begins a watch of one rank; gives it and the words with which it would end the process."""
    ends: dict[int, list[str]] = {rank: [] for rank in range(len(NAMES))}

    def begin(rank: int, of: dist.Store = store) -> tuple[Watch, list[str]]:
        for other in range(len(NAMES)):
            of.set(f"beat/{other}", "0")  # all ranks came, as after `group.join`
        watch = Watch(of, Place(rank, len(NAMES), "ab"[rank > 0], url="tcp://a:1"), NAMES, **QUICK)
        return watch, ends[rank]

    return begin


def all_watch(watching: Callable[..., tuple[Watch, list[str]]]) -> list[tuple[Watch, list[str]]]:
    begun = [watching(rank) for rank in range(len(NAMES))]
    for watch, words in begun:
        watch.start(words.append)
    return begun


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("picture 7 is broken"), "rank 1 on b failed: picture 7 is broken"),
        (SystemExit("tool.py: error: picture 7"), "rank 1 on b failed: picture 7"),
        (KeyError("x"), "rank 1 on b failed: KeyError: 'x' (it has printed the traceback)"),
    ],
)
def test_a_failure_ends_the_others_with_its_reason(error, text: str, watching) -> None:
    (_, at_0), (failing, at_1), (_, at_2) = all_watch(watching)
    with pytest.raises(type(error)), failing:
        raise error
    wait_until(lambda: bool(at_0 and at_2))
    assert (at_0, at_1, at_2) == ([text], [], [text])


def test_a_process_that_lost_the_others_learns_why_and_ends_by_itself(watching) -> None:
    (first, at_0), (failing, _), (third, at_2) = all_watch(watching)
    with suppress(InputError), failing:
        raise InputError("picture 7 is broken")
    for watch in (third, first):
        reason = "^rank 1 on b failed: picture 7 is broken$"
        with pytest.raises(LostProcessError, match=reason), watch:
            raise LostProcessError("connection closed")
    time.sleep(2 * QUICK["grace_s"])
    assert at_0 == at_2 == []


def test_the_first_reason_is_the_one(watching) -> None:
    (_, at_0), (second, _), (third, _) = all_watch(watching)
    for watch, reason in ((second, "a"), (third, "b")):
        with suppress(InputError), watch:
            raise InputError(reason)
    wait_until(lambda: bool(at_0))
    assert at_0 == ["rank 1 on b failed: a"]


def test_a_normal_end_is_no_failure(watching) -> None:
    """Whoever leaves first; rank 0 waits for all others, as the store may end with it."""
    (first, at_0), (second, at_1), (third, at_2) = all_watch(watching)
    with second:
        pass
    time.sleep(2 * QUICK["silent_s"])  # rank 0 writes its last checkpoint
    ended = threading.Event()

    def end_first() -> None:
        with first:
            pass
        ended.set()

    threading.Thread(target=end_first, daemon=True).start()
    assert not ended.wait(0.3)
    with third:
        pass
    assert ended.wait(5) and at_0 == at_1 == at_2 == []


@pytest.mark.parametrize("status", [143, 130])
def test_an_end_by_a_signal_is_no_failure(status: int, watching) -> None:
    (_, at_0), (second, _), _ = all_watch(watching)
    with suppress(SystemExit), second:
        raise SystemExit(status)
    time.sleep(1.5 * QUICK["silent_s"])
    assert at_0 == []


def test_a_rank_without_a_sign_of_life_is_named(watching) -> None:
    begun = [watching(rank) for rank in range(len(NAMES))]
    for watch, words in begun[:2]:  # rank 2 came, and is heard of no more
        watch.start(words.append)
    at_0, at_1 = begun[0][1], begun[1][1]
    wait_until(lambda: bool(at_0 and at_1))
    assert at_0 == at_1 == ["rank 2 on b gave no sign of life for 1.5 s"]


def test_rank_0_without_a_sign_of_life_is_named_where_the_store_outlives_it(watching) -> None:
    """As torchrun's agent on another machine keeps it."""
    begun = [watching(rank) for rank in range(len(NAMES))]
    for watch, words in begun[1:]:
        watch.start(words.append)
    at_1, at_2 = begun[1][1], begun[2][1]
    wait_until(lambda: bool(at_1 and at_2))
    assert at_1 == at_2 == ["rank 0 on a gave no sign of life for 1.5 s"]


def test_a_machine_without_a_sign_of_life_is_noticed_also_if_rank_0_was_there(
    store: dist.Store,
) -> None:
    names = [f"rank {rank} on {'ab'[rank > 1]}" for rank in range(4)]
    ends: list[str] = []
    watches = [Watch(store, Place(rank, 4, "ab"[rank > 1]), names, **QUICK) for rank in range(4)]
    for watch in watches[2:]:
        watch.start(ends.append)
    wait_until(lambda: len(ends) == 2)
    assert set(ends) == {"rank 1 on a gave no sign of life for 1.5 s"}


def test_after_a_lost_connection_the_one_who_is_gone_is_found_sooner(watching) -> None:
    begun = [watching(rank) for rank in range(len(NAMES))]
    for watch, words in begun[:2]:
        watch.start(words.append)
    start = time.monotonic()
    reason = "rank 2 on b gave no sign of life for 0.25 s"
    with pytest.raises(LostProcessError, match=reason), begun[1][0]:
        raise LostProcessError("connection closed")
    assert time.monotonic() - start < QUICK["silent_s"]


STORE = """
import time, torch.distributed as dist
store = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
print(store.port, flush=True)
time.sleep(60)
"""


@pytest.fixture
def far_store() -> Iterator[tuple[subprocess.Popen[str], dist.Store]]:
    process = subprocess.Popen([sys.executable, "-c", STORE], stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline())
    yield process, dist.TCPStore("127.0.0.1", port, is_master=False)
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(
    ("number", "what"), [(signal.SIGKILL, "has ended"), (signal.SIGSTOP, "does not answer")]
)
def test_a_store_that_is_gone_or_silent_ends_all(
    number: int, what: str, far_store, watching
) -> None:
    """A machine whose program ended, and one without power: nothing comes from it any more."""
    process, store = far_store
    watch, words = watching(1, store)
    watch.start(words.append)
    time.sleep(0.2)
    os.kill(process.pid, number)
    wait_until(lambda: bool(words))
    assert words[0].startswith("the machine of rank 0 is lost, or the process")
    assert f"rank 0 on a; the store at --dist-url tcp://a:1 {what}" in words[0]


def test_a_launching_process_tells_of_a_process_that_was_killed(
    store: dist.Store, watching
) -> None:
    watch, words = watching(1, dist.PrefixStore(group._PREFIX, store))
    watch.start(words.append)
    place = Place(2, 3, "1", url=f"tcp://127.0.0.1:{store.port}")
    group.tell_others(place, "was ended by SIGKILL")
    wait_until(lambda: bool(words))
    assert words == [f"{place.name()} was ended by SIGKILL"]


def test_telling_nobody_is_no_error(monkeypatch) -> None:
    monkeypatch.setattr(group, "_TELL_TIMEOUT", timedelta(seconds=0.5))
    for url in ("tcp://127.0.0.1:9", "file:///tmp/nothing", "env://"):
        group.tell_others(Place(0, 2, "a", url=url), "is gone")


def test_a_start_uses_nothing_that_an_earlier_one_left(store: dist.Store, monkeypatch) -> None:
    """torchrun's agent keeps the store; each machine counts its own restarts."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    stores = [store.clone() for _ in range(2)]

    def started(delays: tuple[float, float]) -> list[dist.Store]:
        parts: list[dist.Store] = [None, None]

        def one(rank: int) -> None:
            time.sleep(delays[rank])
            parts[rank] = group._of_this_start(stores[rank], Place(rank, 2, "a"))

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return parts

    for round_, delays in enumerate([(0.0, 0.0), (0.0, 0.5), (0.5, 0.0)]):
        first, second = started(delays)
        assert not first.check(["key"])
        first.set("key", str(round_))
        assert second.get("key") == str(round_).encode()
