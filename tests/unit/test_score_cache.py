"""Scores come back as they were kept, under nothing but what they depend on; the file stays within its bounds."""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from orchestrator import storage
from orchestrator.kept import entries, kept_file, sqlite_file
from orchestrator.running.score_cache import ScoreCache, list_key, pair_keys
from orchestrator.types import Document, Query

Pair = tuple[Query, Document]
DAY_S = 86_400


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ScoreCache]:
    made = ScoreCache(tmp_path)
    yield made
    made.close()


def pairs(n: int, query: str = "a question", word: str = "text") -> list[Pair]:
    return [(Query("q", query), Document(f"d{i}", f"{word} {i}")) for i in range(n)]


def keep(cache: ScoreCache, of: Sequence[Pair], scores: Sequence[float], expires: bool = False) -> None:
    cache.keep_scores("model", of, scores, expires=expires)
    cache.flush()


def test_scores_come_back_to_the_last_bit_and_by_text_not_by_id(cache: ScoreCache, tmp_path: Path) -> None:
    wanted = np.random.default_rng(1).standard_normal(3000) * 1e3
    keep(cache, pairs(3000), wanted.tolist())
    backwards = [(Query("other", query.text), Document("x", doc.text)) for query, doc in pairs(3000)[::-1]]
    for reader in (cache, ScoreCache(tmp_path)):
        np.testing.assert_array_equal(reader.scored("model", backwards)[0], wanted[::-1])
        reader.close()


def test_what_is_not_kept_is_nan(cache: ScoreCache) -> None:
    assert np.isnan(cache.scored("model", pairs(3))[0]).all()
    keep(cache, pairs(4), [1.0, math.nan, math.inf, -math.inf])
    found = cache.scored("model", pairs(5))[0]
    assert found[0] == 1.0
    assert np.isnan(found[1:]).all()
    assert cache.scored("model", [])[0].shape == (0,)
    assert np.isnan(cache.scored("another model", pairs(1))[0]).all()


def test_a_pair_that_stands_twice_has_its_score_twice(cache: ScoreCache) -> None:
    keep(cache, [*pairs(2), *pairs(2)], [0.25, 0.5, 0.25, 0.5])
    assert cache.scored("model", [*pairs(2), *pairs(2)])[0].tolist() == [0.25, 0.5, 0.25, 0.5]


def test_the_newest_score_counts(cache: ScoreCache) -> None:
    keep(cache, pairs(1), [1.0])
    keep(cache, pairs(1), [2.0])
    assert cache.scored("model", pairs(1))[0].tolist() == [2.0]


def test_keys_tell_apart_what_concatenation_would_not() -> None:
    def key(identity: str, query: str, title: str, text: str) -> bytes:
        return pair_keys(identity, [(Query("q", query), Document("d", text, title))])[0]

    parts = [("ab", "c", "d", "e"), ("a", "bc", "d", "e"), ("ab", "cd", "", "e"), ("ab", "c", "", "de")]
    parts += [("ab", "c", "de", ""), ("ab", "c", "", "d\ne"), ("ab", "c", "d", "e "), ("", "abc", "d", "e")]
    keys = {key(*part) for part in parts}
    keys |= {list_key(part[0], Query("q", part[1]), [Document("d", part[3], part[2])]) for part in parts}
    a, b = Document("1", "a"), Document("2", "b")
    keys |= {list_key("m", Query("q", "x"), listed) for listed in ([a, b], [b, a], [a], [], [a, a, b])}
    assert len(keys) == 2 * len(parts) + 5
    assert {len(each) for each in keys} == {16}


def test_a_key_is_blake2b_of_the_parts_with_their_lengths() -> None:
    parts = [b"score", b"model", "é".encode(), b"title"]
    data = b"".join(len(part).to_bytes(8, "little") + part for part in parts) + b"text"
    expected = hashlib.blake2b(data, digest_size=16).digest()
    assert pair_keys("model", [(Query("q", "é"), Document("d", "text", "title"))]) == [expected]


def test_text_that_is_no_utf8_is_kept_too(cache: ScoreCache) -> None:
    odd = [(Query("q", "\udcff"), Document("d", "\ud800"))]
    keep(cache, odd, [3.0])
    assert cache.scored("model", odd)[0].tolist() == [3.0]


def test_an_order_belongs_to_exactly_its_sequence(cache: ScoreCache) -> None:
    documents = [document for _, document in pairs(300)]
    query, order = Query("q", "a question"), list(range(299, -1, -1))
    cache.keep_order("model", query, documents, order, expires=False)
    cache.flush()
    assert cache.order("model", query, documents) == order
    assert cache.order("model", query, documents[:-1]) is None
    assert cache.order("model", query, documents[::-1]) is None
    assert cache.order("model", Query("q", "another"), documents) is None


@pytest.mark.parametrize("order", [[0, 0, 1], [0, 1], [0, 1, 3], [-1, 0, 1]])
def test_what_is_no_order_is_refused(cache: ScoreCache, order: list[int]) -> None:
    with pytest.raises(ValueError, match="an order of 3 documents that is none"):
        cache.keep_order("model", Query("q", "x"), [document for _, document in pairs(3)], order, expires=False)


def test_entries_of_remote_models_expire_and_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ScoreCache(tmp_path, remote_days=30)
    local, remote = pairs(2), pairs(2, word="remote")
    keep(cache, local, [1.0, 2.0])
    keep(cache, remote, [3.0, 4.0], expires=True)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 29.9 * DAY_S)
    assert cache.scored("model", [*local, *remote])[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    monkeypatch.setattr(time, "time", lambda: now + 30.1 * DAY_S)
    found = cache.scored("model", [*local, *remote])[0]
    assert found[:2].tolist() == [1.0, 2.0]
    assert np.isnan(found[2:]).all(), "having been read in between keeps nothing alive"
    keep(cache, remote, [5.0, 6.0], expires=True)
    assert cache.scored("model", remote)[0].tolist() == [5.0, 6.0]
    cache.close()


def test_the_file_stays_below_its_limit_and_keeps_what_was_used_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ScoreCache(tmp_path, max_mb=1)
    now = time.time()
    favourite = pairs(50, word="favourite")
    keep(cache, favourite, list(range(50)))
    for day in range(12):
        monkeypatch.setattr(time, "time", lambda day=day: now + day * DAY_S)
        assert cache.scored("model", favourite)[0].tolist() == list(range(50)), "each use puts it back to the end"
        keep(cache, pairs(3000, word=f"day {day}"), list(range(3000)))
        assert (tmp_path / "scores.sqlite").stat().st_size < 1.2 * (1 << 20)
    assert not np.isnan(cache.scored("model", pairs(3000, word="day 11"))[0]).any()
    assert np.isnan(cache.scored("model", pairs(3000, word="day 0"))[0]).all()
    assert cache._writing.n_bytes() <= 1 << 20
    cache.close()


def test_a_use_is_written_at_most_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ScoreCache(tmp_path)
    keep(cache, pairs(5), [1.0] * 5)
    written: list[int] = []
    whole = cache._writing.write

    def counting(rows: Sequence[entries.Entry], removed: Sequence[bytes] = ()) -> None:
        written.append(len(rows))
        whole(rows, removed)

    monkeypatch.setattr(cache._writing, "write", counting)
    tomorrow = time.time() + DAY_S
    for _ in range(3):
        cache.scored("model", pairs(5))[0]
        cache.flush()
    assert written == []
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    for _ in range(3):
        cache.scored("model", pairs(5))[0]
        cache.flush()
    assert written == [5]
    cache.close()


def test_more_keys_than_sqlite_takes_variables(cache: ScoreCache, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = list(range(40_000))
    keep(cache, pairs(40_000), wanted)
    assert cache.scored("model", pairs(40_000))[0].tolist() == wanted


def test_a_writer_that_is_busy_for_long_does_not_hold_up_readers(cache: ScoreCache, tmp_path: Path) -> None:
    keep(cache, pairs(3), [1.0, 2.0, 3.0])
    with sqlite3.connect(tmp_path / "scores.sqlite") as busy:
        busy.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        assert cache.scored("model", pairs(3))[0].tolist() == [1.0, 2.0, 3.0]
        assert time.monotonic() - started < 1
        busy.execute("ROLLBACK")
    busy.close()


def test_a_file_that_somebody_else_is_opening_for_long_holds_up_one_look_up_and_no_other(tmp_path: Path) -> None:
    before = ScoreCache(tmp_path)
    keep(before, pairs(3), [1.0, 2.0, 3.0])
    before.close()
    cache = ScoreCache(tmp_path)
    with storage.locked(tmp_path / "scores.lock"):
        started = time.monotonic()
        assert np.isnan(cache.scored("model", pairs(3))[0]).all()
        assert time.monotonic() - started < 0.5
        started = time.monotonic()
        for _ in range(20):
            cache.scored("model", pairs(3))
        assert time.monotonic() - started < 0.5
    time.sleep(sqlite_file._BUSY_PAUSE_S)
    assert cache.scored("model", pairs(3))[0].tolist() == [1.0, 2.0, 3.0]
    cache.close()


def test_many_threads_read_and_write_at_once(cache: ScoreCache) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(20):
            mine = pairs(30, word=f"{(number + turn) % 4}")
            expected = np.arange(30) + 100.0 * ((number + turn) % 4)
            found = cache.scored("model", mine)[0]
            wrong.extend(found[~np.isnan(found) & (found != expected)])
            cache.keep_scores("model", mine, expected, expires=False)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.flush()
    assert wrong == []
    assert cache.scored("model", pairs(30, word="3"))[0].tolist() == (np.arange(30) + 300.0).tolist()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_reads_and_writes_on_its_own(cache: ScoreCache) -> None:
    keep(cache, pairs(10), list(range(10)))
    assert not np.isnan(cache.scored("model", pairs(10))[0]).any()
    cache.keep_scores("model", pairs(10, word="parents"), list(range(10)), expires=False)
    child = os.fork()
    if not child:
        good = cache.scored("model", pairs(10))[0].tolist() == list(range(10))
        keep(cache, pairs(10, word="child"), list(range(10)))
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    cache.flush()
    for word in ("text", "child", "parents"):
        assert cache.scored("model", pairs(10, word=word))[0].tolist() == list(range(10))


def test_what_waits_is_written_when_the_program_ends(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from orchestrator.running.score_cache import ScoreCache\n"
        "from orchestrator.types import Document, Query\n"
        "cache = ScoreCache(Path(sys.argv[1]))\n"
        "cache.keep_scores('model', [(Query('q', 'a question'), Document('d', 'text 0'))], [7.0], expires=False)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert ScoreCache(tmp_path).scored("model", pairs(1))[0].tolist() == [7.0]


def test_what_comes_faster_than_it_can_be_written_is_dropped(
    cache: ScoreCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_file, "_MOST_WAITING", 0)
    small = ScoreCache(cache.path.parent)
    keep(small, pairs(1), [1.0])
    assert np.isnan(small.scored("model", pairs(1))[0]).all()
    small.close()


def test_what_waits_for_a_thread_is_written_once_there_is_one(
    cache: ScoreCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with capture_logs() as events:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            for number in range(3):
                cache.keep_scores("model", pairs(1, word=str(number)), [float(number)], expires=False)
            started = time.monotonic()
            cache.flush()
            assert time.monotonic() - started < 5, "nothing to wait for"
        assert [event["event"] for event in events] == ["cache.not_written"], "once"
    keep(cache, pairs(1), [9.0])
    found = [cache.scored("model", pairs(1, word=word))[0][0] for word in ("0", "1", "2", "text")]
    assert found == [0.0, 1.0, 2.0, 9.0]


def test_the_best_window_of_a_document_is_kept_with_its_score(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    cache.keep_scores("model", pairs(3), [1.0, 2.0, 3.0], [None, (5, 90), (0, 1 << 40)], expires=False)
    cache.flush()
    scores, spans = cache.scored("model", pairs(4))
    assert scores[:3].tolist() == [1.0, 2.0, 3.0]
    assert spans == [None, (5, 90), (0, 1 << 40), None]
    cache.close()
