"""Whatever happens to the file of scores, no wrong score comes out of it, nothing fails, and it is built anew."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from orchestrator.running.score_cache import ScoreCache
from orchestrator.types import Document, Query

Pair = tuple[Query, Document]
N = 600


def pairs(n: int = N) -> list[Pair]:
    return [(Query("q", "a question"), Document(str(i), f"the text of document {i}")) for i in range(n)]


def right(of: list[Pair]) -> np.ndarray:
    """A score that follows from the text, so that any process can tell a wrong one."""
    return np.array([zlib.crc32(document.text.encode()) / 7 for _, document in of])


def check(cache: ScoreCache, of: list[Pair]) -> int:
    """How many of the pairs are kept; each of them with its right score."""
    found = cache.scored("model", of)[0]
    kept = ~np.isnan(found)
    np.testing.assert_array_equal(found[kept], right(of)[kept])
    return int(kept.sum())


def fill(root: Path, n: int = N) -> Path:
    cache = ScoreCache(root)
    cache.keep_scores("model", pairs(n), right(pairs(n)), expires=False)
    cache.close()
    return root / "scores.sqlite"


def serves_again(cache: ScoreCache) -> None:
    """It keeps and finds as if nothing had been."""
    cache.keep_scores("model", pairs(), right(pairs()), expires=False)
    cache.flush()
    assert check(cache, pairs()) == N


def warnings(events: list) -> list[str]:
    return [event["event"] for event in events if event["log_level"] == "warning"]


def test_flipped_bytes_never_make_a_wrong_score(tmp_path: Path) -> None:
    drawn = random.Random(3)
    whole = fill(tmp_path).read_bytes()
    rebuilt, kept = 0, []
    for turn in range(25):
        data = bytearray(whole)
        for _ in range(drawn.choice([1, 4, 60])):
            data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
        (tmp_path / "scores.sqlite").write_bytes(data)
        cache = ScoreCache(tmp_path)
        with capture_logs() as events:
            kept.append(check(cache, pairs()))
            cache.keep_scores("model", pairs(), right(pairs()), expires=False)
            cache.flush()
            check(cache, pairs())
            cache._writing.check()
            serves_again(cache)
        assert len(warnings(events)) == len(set(warnings(events))), f"turn {turn}: told once each"
        rebuilt += "cache.rebuilt" in warnings(events)
        cache.close()
    assert 0 < rebuilt < 25
    assert np.mean(kept) > N / 4, "what is whole goes on serving"


def test_a_flipped_score_is_missing_and_its_row_is_removed(tmp_path: Path) -> None:
    path = fill(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET value = x'000000000000F03F' || substr(value, 9) WHERE place <= 3")
        connection.execute("UPDATE entries SET kept = 5 WHERE place = 4")
        connection.execute("UPDATE entries SET value = 'text' WHERE place = 5")
        connection.execute("UPDATE entries SET used = 'never' WHERE place = 6")
    connection.close()
    cache = ScoreCache(tmp_path)
    with capture_logs() as events:
        assert check(cache, pairs()) == N - 6
        assert check(cache, pairs()) == N - 6
        cache.flush()
    assert warnings(events) == ["cache.damaged_rows"]
    assert len(cache._reading) == N - 6
    cache.close()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_built_anew(tmp_path: Path, share: float) -> None:
    path = fill(tmp_path)
    os.truncate(path, int(path.stat().st_size * share))
    cache = ScoreCache(tmp_path)
    check(cache, pairs())
    serves_again(cache)
    cache.close()


def _no_database(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def _another_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine(x)")
    connection.close()


def _without_its_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE entries")
        connection.execute("CREATE TABLE other(x)")
    connection.close()


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("a file of somebody's")


@pytest.mark.parametrize("spoil", [_no_database, _another_version, _another_program, _without_its_table, _a_folder])
def test_what_is_no_cache_of_ours_is_set_aside_with_one_warning(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = fill(tmp_path)
    spoil(path)
    cache = ScoreCache(tmp_path)
    with capture_logs() as events:
        assert check(cache, pairs()) == 0
        serves_again(cache)
    assert warnings(events) == ["cache.rebuilt"]
    assert (tmp_path / "scores.sqlite.damaged").exists(), "what stood there is not lost"
    if spoil is _a_folder:
        assert (tmp_path / "scores.sqlite.damaged" / "inside").read_text() == "a file of somebody's"
    _no_database(path)
    other = ScoreCache(tmp_path)
    serves_again(other)
    other.close()
    cache.close()


def test_a_file_that_is_damaged_while_open_is_replaced_for_all_who_have_it(tmp_path: Path) -> None:
    path = fill(tmp_path)
    first, second = ScoreCache(tmp_path), ScoreCache(tmp_path)
    assert check(first, pairs()) == check(second, pairs()) == N
    # As another process would; within this one, closing a file of its own would drop sqlite's locks.
    code = "import sys; f = open(sys.argv[1], 'r+b'); f.write(b'x' * 40000)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    with capture_logs() as events:
        for cache in (first, second):
            check(cache, pairs())
        serves_again(first)
        assert check(second, pairs()) == N
    assert warnings(events) in ([], ["cache.rebuilt"])
    for cache in (first, second):
        cache.close()
    assert check(ScoreCache(tmp_path), pairs()) == N


def test_a_file_deleted_while_open_is_made_again(tmp_path: Path) -> None:
    path = fill(tmp_path)
    first, second = ScoreCache(tmp_path), ScoreCache(tmp_path)
    assert check(first, pairs()) == check(second, pairs()) == N
    path.unlink()
    with capture_logs() as events:
        assert check(first, pairs()) == 0
        serves_again(second)
        assert check(first, pairs()) == N
    assert warnings(events) == []
    for cache in (first, second):
        cache.close()


def test_what_another_database_left_beside_it_is_not_taken_for_its_own(tmp_path: Path) -> None:
    path = fill(tmp_path / "other")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET value = x'00'")
        connection.commit()
        for ending in ("-wal", "-shm"):
            beside = path.with_name(path.name + ending).read_bytes()
            (tmp_path / f"scores.sqlite{ending}").write_bytes(beside)
    connection.close()
    cache = ScoreCache(tmp_path)
    assert check(cache, pairs()) == 0
    serves_again(cache)
    cache.close()


def test_a_damaged_log_of_changes_costs_its_changes_only(tmp_path: Path) -> None:
    code = _WRITER.replace("while True", "for _ in range(3)") + "\nimport os, signal\nos.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, stdout=subprocess.DEVNULL)
    wal = tmp_path / "scores.sqlite-wal"
    data = bytearray(wal.read_bytes())
    for place in range(5000, len(data), 3000):
        data[place] ^= 0xFF
    wal.write_bytes(data)
    cache = ScoreCache(tmp_path)
    check(cache, pairs())
    serves_again(cache)
    cache.close()


@pytest.mark.parametrize("place", ["root", "lock"])
def test_a_folder_that_cannot_be_written_turns_the_cache_off_with_one_warning(tmp_path: Path, place: str) -> None:
    root = tmp_path / "root"
    if place == "root":
        root.write_text("a file where the folder should be")
    else:
        (root / "scores.lock").mkdir(parents=True)
    cache = ScoreCache(root)
    with capture_logs() as events:
        for _ in range(3):
            assert check(cache, pairs(5)) == 0
            cache.keep_scores("model", pairs(5), right(pairs(5)), expires=False)
            cache.flush()
    assert warnings(events) == ["cache.off"]
    cache.close()


def test_a_full_disk_stops_the_writing_and_not_the_reading(tmp_path: Path) -> None:
    fill(tmp_path)
    cache = ScoreCache(tmp_path)
    cache._writing.n_bytes()
    assert cache._writing.file._connection is not None
    cache._writing.file._connection.execute("PRAGMA max_page_count = 1")
    more = [(query, Document("x", f"more {document.text}")) for query, document in pairs()]
    with capture_logs() as events:
        for _ in range(2):
            cache.keep_scores("model", more, right(more), expires=False)
            cache.flush()
            assert check(cache, pairs()) == N
            assert check(cache, more) == 0
    assert warnings(events) == ["cache.off"]
    cache.close()


_WRITER = """
import sys, zlib
from pathlib import Path
import numpy as np
from orchestrator.running.score_cache import ScoreCache
from orchestrator.types import Document, Query
cache = ScoreCache(Path(sys.argv[1]), max_mb=float(sys.argv[2]) if len(sys.argv) > 2 else None)
pairs = [(Query("q", "a question"), Document(str(i), f"the text of document {i}")) for i in range(600)]
right = np.array([zlib.crc32(document.text.encode()) / 7 for _, document in pairs])
turn = 0
while True:
    start = turn * 100 % 600
    some = slice(start, start + 100)
    found = cache.scored("model", pairs[some])[0]
    kept = ~np.isnan(found)
    assert (found[kept] == right[some][kept]).all(), "a wrong score"
    cache.keep_scores("model", pairs[some], right[some], expires=False)
    cache.flush()
    turn += 1
    print(turn, flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_entries(tmp_path: Path) -> None:
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            finished = [int(process.stdout.readline()) for _ in range(7)][-1]
            process.send_signal(signal.SIGKILL)
        cache = ScoreCache(tmp_path)
        assert check(cache, pairs()) >= min(N, finished * 100), "what was flushed is there"
        cache.close()
    assert not (tmp_path / "scores.sqlite.damaged").exists()


def ruin(path: Path, drawn: random.Random, how: int) -> bool:
    """Cut the file short, remove it, or write into it; False where there is none. This process has it not open."""
    size = path.stat().st_size if path.is_file() else 0
    if not size:
        return False
    if how == 0:
        os.truncate(path, drawn.randrange(size))
    elif how == 1:
        path.unlink(missing_ok=True)
    else:
        with path.open("r+b") as file:
            for _ in range(40):
                file.seek(drawn.randrange(size))
                file.write(drawn.randbytes(1))
    return True


def test_processes_share_the_file_while_somebody_ruins_it(tmp_path: Path) -> None:
    """Three processes read and write; meanwhile the file is overwritten, cut short, replaced and removed."""
    command = [sys.executable, "-c", _WRITER, str(tmp_path), "0.05"]
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    path, drawn, ruined = tmp_path / "scores.sqlite", random.Random(5), 0
    until = time.monotonic() + 30
    while ruined < 16 and time.monotonic() < until:
        time.sleep(drawn.uniform(0.02, 0.2))
        ruined += ruin(path, drawn, ruined % 4)
    for process in running:
        process.kill()
    errors = [process.communicate()[1] for process in running]
    assert ruined == 16
    assert [text for text in errors if "Traceback" in text] == []
    cache = ScoreCache(tmp_path)
    check(cache, pairs())
    serves_again(cache)
    cache.close()
