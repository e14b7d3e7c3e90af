"""Writes are whole or not at all; locks hold; generations switch."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator import storage
from orchestrator.errors import ConfigError, IndexStateError


def build(parent: Path, content: str) -> Path:
    with storage.locked(parent / storage.LOCK), storage.new_generation(parent) as directory:
        (directory / "data").write_text(content)
    current = storage.current_generation(parent)
    assert current is not None
    return current


def stop_half_way(parent: Path, error: type[BaseException]) -> None:
    with storage.new_generation(parent) as directory:
        (directory / "data").write_text("half")
        raise error


def test_stable_hash_is_that_of_canonical_json() -> None:
    expected = hashlib.blake2b(b'{"a":[1,"\xc3\xa9"],"b":null}', digest_size=32).hexdigest()[:16]
    assert storage.stable_hash({"b": None, "a": [1, "é"]}) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("BAAI/bge m3", "BAAI-bge-m3"), ("../../etc", "etc"), ("///", "unnamed"), ("医学", "医学"), ("x" * 99, "x" * 60)],
)
def test_slug_is_one_plain_path_component(name: str, expected: str) -> None:
    assert storage.slug(name) == expected


def test_file_digest_is_blake2b_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 100_000)
    assert storage.file_digest(tmp_path / "f") == hashlib.blake2b(b"abc" * 100_000, digest_size=16).hexdigest()


def test_a_failed_atomic_write_leaves_neither_a_part_nor_a_change(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "inside").write_text("old")
    with pytest.raises(OSError, match="target"):
        storage.write_atomic(tmp_path / "target", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target" / "inside").read_text() == "old"


def test_an_atomic_write_replaces_the_content(tmp_path: Path) -> None:
    storage.write_atomic(tmp_path / "a" / "f", "old")
    storage.write_atomic(tmp_path / "a" / "f", b"new")
    assert (tmp_path / "a" / "f").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["f"]


def test_a_new_generation_takes_the_place_of_the_old(tmp_path: Path) -> None:
    first = build(tmp_path, "one")
    second = build(tmp_path, "two")
    assert (second / "data").read_text() == "two"
    assert not first.exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_build_that_stops_leaves_the_old_generation(tmp_path: Path, error: type[BaseException]) -> None:
    first = build(tmp_path, "one")
    with pytest.raises(error):
        stop_half_way(tmp_path, error)
    assert storage.current_generation(tmp_path) == first
    assert (first / "data").read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.name, "current", "lock"])


_KILLED = """
import sys, time
from pathlib import Path
from orchestrator import storage
parent = Path(sys.argv[1])
with storage.locked(parent / storage.LOCK), storage.new_generation(parent) as directory:
    (directory / "data").write_text("half")
    print("building", flush=True)
    time.sleep(60)
"""


def test_a_killed_build_leaves_the_old_generation_and_no_lock(tmp_path: Path) -> None:
    first = build(tmp_path, "one")
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"building\n"
        process.send_signal(signal.SIGKILL)
    assert storage.current_generation(tmp_path) == first
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2
    second = build(tmp_path, "two")
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [second]


def test_a_build_removes_nothing_that_is_not_a_generation(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "20240101T000000").mkdir()
    build(tmp_path, "one")
    build(tmp_path, "two")
    assert (tmp_path / "photos").is_dir()
    assert (tmp_path / "20240101T000000").is_dir()
    assert storage.foreign_entries(tmp_path) == ["20240101T000000", "photos"]


@pytest.mark.parametrize("name", ["", "..", "../elsewhere", "20260101T000000-0000abcd"])
def test_a_pointer_to_no_generation_counts_as_none(tmp_path: Path, name: str) -> None:
    parent = tmp_path / "parent"
    (tmp_path / "elsewhere").mkdir()
    parent.mkdir()
    (parent / storage.CURRENT).write_text(name)
    assert storage.current_generation(parent) is None


def test_a_reader_that_loses_the_race_opens_the_new_generation(tmp_path: Path) -> None:
    build(tmp_path, "one")
    opened: list[Path] = []

    def read(directory: Path) -> str:
        opened.append(directory)
        if len(opened) == 1:
            build(tmp_path, "two")
        return (directory / "data").read_text()

    assert storage.use_current(tmp_path, read) == "two"
    assert len(opened) == 2


def test_a_damaged_current_generation_is_reported_and_not_tried_again(tmp_path: Path) -> None:
    build(tmp_path, "one")
    tries = []

    def read(directory: Path) -> str:
        tries.append(directory)
        raise IndexStateError("damaged")

    with pytest.raises(IndexStateError, match="damaged"):
        storage.use_current(tmp_path, read)
    assert len(tries) == 1
    shutil.rmtree(tries[0])
    assert storage.use_current(tmp_path, read) is None


def test_a_lock_holds_between_threads(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with storage.locked(tmp_path / "lock"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.002)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_folder_that_cannot_be_written_is_named_with_the_choices(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"cannot write to .*file/below.*storage.root=DIR"),
        storage.locked(tmp_path / "file" / "below" / "lock"),
    ):
        pass
