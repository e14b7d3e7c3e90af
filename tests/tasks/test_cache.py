"""`orchestrate cache show|prune|clear`, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from orchestrator import storage
from orchestrator.config.schema import RootSchema
from orchestrator.errors import ConfigError
from orchestrator.keys import text_keys
from orchestrator.models.kept import find_or_make
from orchestrator.models.manifest import Manifest
from orchestrator.rows.row_repair import SET_ASIDE
from orchestrator.rows.sparse_vectors import SparseStore
from orchestrator.rows.token_vectors import TokenStore
from orchestrator.rows.vectors import VectorStore
from orchestrator.running.score_cache import ScoreCache
from orchestrator.running.stage_results import StageResults
from orchestrator.tasks.cache import run
from orchestrator.types import Document, Query, SparseVector, TokenVectors

DAY_S = 86_400
PAIRS = [(Query("q", "a question"), Document(str(i), f"text {i}")) for i in range(500)]


def vectors(root: Path, name: str, days: float, n: int = 100) -> Path:
    """A store of `n` vectors of 400 bytes, last used `days` ago."""
    store = VectorStore(root, name, 100)
    store.append(text_keys([f"{name} {i}" for i in range(n)]), np.ones((n, 100), np.float32))
    store.find(text_keys(["a"]))
    return used(store.directory, days)


def used(folder: Path, days: float) -> Path:
    then = time.time() - days * DAY_S
    (folder / "used").touch()
    os.utime(folder / "used", (then, then))
    return folder


def scores(root: Path) -> Path:
    with_cache = ScoreCache(root)
    with_cache.keep_scores("model", PAIRS, np.arange(500.0), expires=False)
    with_cache.close()
    return root / "scores.sqlite"


def results(root: Path, n: int = 9, n_bytes: int = 1000) -> Path:
    kept = StageResults(root)
    kept.keep({bytes([place // 256, place % 256]) * 8: bytes(n_bytes) for place in range(n)}, expires=False)
    kept.close()
    return root / "stages" / "results.sqlite"


def model(root: Path, days: float) -> Path:
    def make(folder: Path) -> Manifest:
        (folder / "model.onnx").write_bytes(bytes(5000))
        nothing: dict[str, str] = {}
        return Manifest(
            role="reranker",
            source="some/model",
            input_names=(),
            pad_id=0,
            special_ids=(),
            truncation_side="right",
            max_length_tokens=None,
            position_limit=None,
            hidden_size=1,
            modules=(),
            prompts=nothing,
            similarity="dot",
            truncate_dim=None,
            sources=nothing,
            files={},
        )

    find_or_make(root / "models" / "some-model-0123", make)
    return used(root / "models" / "some-model-0123", days)


def generation(parent: Path, content: dict[str, object]) -> Path:
    with storage.locked(parent / storage.LOCK), storage.new_generation(parent) as folder:
        for name, facts in content.items():
            (folder / name).write_text(json.dumps(facts))
    return parent


@pytest.fixture
def full(storage_root: Path) -> Path:
    """A storage root with something of everything."""
    scores(storage_root)
    results(storage_root)
    vectors(storage_root, "new", days=1)
    vectors(storage_root, "old", days=90)
    words = TokenVectors(np.ones((3, 8), np.float32), np.arange(3, dtype=np.int32))
    TokenStore(storage_root, "tokens model", 8, "int8", None, "")._append(text_keys(["a"]), [words])
    sparse = SparseVector(np.arange(2, dtype=np.uint32), np.ones(2, np.float32))
    SparseStore(storage_root, "sparse model")._append(text_keys(["a", "b"]), [sparse, sparse])
    model(storage_root, days=2)
    index = {"corpus": "docs", "n_documents": 7, "settings": {"engine": "edge", "model_id": "m"}}
    generation(storage_root / "indexes" / "docs-1" / "abcd", {"manifest.json": index})
    generation(storage_root / "corpora" / "docs-1", {"state.json": {"n_documents": 7}})
    generation(storage_root / "trained" / "docs-1" / "fused-1", {"model.json": 1})
    (storage_root / "tuned" / "docs-1" / "cross_encoder-m").mkdir(parents=True)
    (storage_root / "tuned" / "docs-1" / "cross_encoder-m" / "training.json").write_text("{}")
    (storage_root / "cost").mkdir()
    (storage_root / "cost" / "machine.json").write_text("{}")
    return storage_root


@pytest.fixture
def told(storage_root: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `orchestrate cache <action> <key=value ...>` prints, without the seconds that Hydra takes."""
    shipped = OmegaConf.create((files("orchestrator.conf") / "task" / "cache.yaml").read_text())

    def call(action: str = "show", *words: str) -> str:
        cfg = OmegaConf.merge(OmegaConf.structured(RootSchema), {"task": shipped})
        given = OmegaConf.from_dotlist(
            [word if word.startswith(("cache.", "format=")) else f"task.{word}" for word in words]
        )
        capsys.readouterr()
        run(OmegaConf.merge(cfg, given, {"task": {"action": action}}), None)  # type: ignore[arg-type]
        return capsys.readouterr().out

    return call


@pytest.fixture
def asked(told: Callable[..., str]) -> Callable[..., dict]:
    """The same with `format=json`."""
    return lambda *words: json.loads(told(*words, "format=json"))


def kinds(found: dict, key: str = "removed") -> list[str]:
    return [one["kind"] for one in found[key]]


def test_show_lists_everything_with_its_size_and_last_use(full: Path, asked: Callable) -> None:
    found = asked("show")
    rows = {(one["kind"], one["about"]): one for one in found["kept"]}
    assert [(kind, about, rows[kind, about]["entries"]) for kind, about in rows] == [
        ("scores", "scores and orders of all models", 500),
        ("stages", "results of stages", 9),
        ("vectors", "new, 100", 100),
        ("vectors", "old, 100", 100),
        ("token_vectors", "tokens model, int8, 8", 1),
        ("sparse_vectors", "sparse model", 2),
        ("models", "some/model, reranker", None),
        ("indexes", "docs: edge, m", 7),
        ("corpora", "docs-1", 7),
        ("cost", "machine", None),
        ("trained", "docs-1: fused-1", None),
        ("tuned", "docs-1: cross_encoder-m", None),
    ]
    assert rows["vectors", "old, 100"]["bytes"] >= 100 * (400 + 16)
    assert rows["models", "some/model, reranker"]["bytes"] > 5000
    ago = time.time() - 90 * DAY_S
    assert rows["vectors", "old, 100"]["last_used"][:10] == time.strftime("%Y-%m-%d", time.gmtime(ago))
    assert found["bytes"] == sum(one["bytes"] for one in found["kept"])
    assert found["root"] == str(full)
    assert all(Path(one["path"]).exists() for one in found["kept"])


def test_an_empty_root_shows_nothing_and_makes_nothing(storage_root: Path, asked: Callable, told: Callable) -> None:
    assert asked("show")["kept"] == []
    assert not storage_root.exists()
    assert told("clear") == f"nothing to remove in {storage_root}\n"


def test_clear_removes_scores_results_and_vectors_and_nothing_else(full: Path, asked: Callable) -> None:
    before = {one["path"]: one for one in asked("show")["kept"]}
    found = asked("clear")
    assert kinds(found) == ["scores", "stages", "vectors", "vectors", "token_vectors", "sparse_vectors"]
    assert found["freed_bytes"] == sum(before[one["path"]]["bytes"] for one in found["removed"])
    left = asked("show")["kept"]
    assert kinds({"kept": left}, "kept") == ["models", "indexes", "corpora", "cost", "trained", "tuned"]
    assert ScoreCache(full).scored("model", PAIRS[:1])[0][0] != 0.0


def test_clear_all_leaves_what_was_learned(full: Path, asked: Callable) -> None:
    mine = full / "vectors" / "linked"
    (full / "elsewhere").mkdir()
    (full / "elsewhere" / "meta.json").write_text("{}")
    mine.symlink_to(full / "elsewhere")
    asked("clear", "what=all")
    assert kinds(asked("show"), "kept") == ["trained", "tuned"]
    assert (full / "elsewhere" / "meta.json").exists()
    assert storage.current_generation(full / "trained" / "docs-1" / "fused-1") is not None


@pytest.mark.parametrize("what", ["trained", "[scores,tuned]"])
def test_what_was_learned_is_never_removed(full: Path, asked: Callable, told: Callable, what: str) -> None:
    found = "task.what: models that were t.* are never removed by this command; 'orchestrate cache show' says where"
    with pytest.raises(ConfigError, match=found):
        told("clear", f"what={what}")
    assert len(asked("show")["kept"]) == 12


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        ("sparse_vectors", ["sparse_vectors"]),
        ("[models,indexes]", ["models", "indexes"]),
        ("corpora", ["corpora"]),
        ("cost", ["cost"]),
    ],
)
def test_clear_removes_what_is_named(full: Path, asked: Callable, what: str, gone: list[str]) -> None:
    assert kinds(asked("clear", f"what={what}", "dry_run=true")) == gone
    assert kinds(asked("clear", f"what={what}")) == gone
    assert kinds(asked("clear", f"what={what}")) == []


def test_a_dry_run_removes_nothing_and_says_what_would_go(full: Path, asked: Callable, told: Callable) -> None:
    before = asked("show")
    text = told("prune", "max_mb=0", "what=all", "dry_run=true")
    assert "would free" in text
    assert "beyond 0 MB" in text
    assert asked("show") == before


def test_prune_by_age_removes_what_was_not_used_since(full: Path, asked: Callable) -> None:
    found = asked("prune", "older_than_days=30")
    assert [(one["about"], one["reason"]) for one in found["removed"]] == [("old, 100", "not used for 90 days")]
    assert found["freed_bytes"] >= 100 * (400 + 16)
    assert asked("show")["kept"][0]["entries"] == 500


def test_prune_by_size_removes_the_least_recently_used_first(storage_root: Path, asked: Callable) -> None:
    folders = [vectors(storage_root, f"model {days}", days, n=1000) for days in (3, 9, 1, 5)]
    mb = sum(path.stat().st_size for path in folders[0].iterdir()) / (1 << 20)
    found = asked("prune", f"max_mb={2.5 * mb:.3f}")
    assert [one["about"] for one in found["removed"]] == ["model 9, 100", "model 5, 100"]
    assert [one["about"] for one in asked("show")["kept"]] == ["model 1, 100", "model 3, 100"]


def test_prune_by_size_takes_scores_last_and_only_so_many_as_must_go(storage_root: Path, asked: Callable) -> None:
    vectors(storage_root, "model", days=1)
    cache = ScoreCache(storage_root)
    many = [(Query("q", str(i // 1000)), Document(str(i), f"text {i}")) for i in range(20_000)]
    cache.keep_scores("model", many, np.arange(20_000.0), expires=False)
    cache.close()
    found = asked("prune", "max_mb=0.7")
    assert kinds(found) == ["vectors", "scores"]
    left = asked("show")["kept"]
    assert kinds({"kept": left}, "kept") == ["scores"]
    assert 0.3 * (1 << 20) < left[0]["bytes"] <= 0.7 * (1 << 20)
    assert left[0]["entries"] == 20_000 - found["removed"][1]["entries"]
    kept = ScoreCache(storage_root).scored("model", many)[0]
    assert (np.isnan(kept) | (kept == np.arange(20_000))).all()
    assert int((~np.isnan(kept)).sum()) == left[0]["entries"]


def test_prune_by_size_takes_results_of_stages_before_scores(storage_root: Path, asked: Callable) -> None:
    scores(storage_root)
    results(storage_root, n=1000)
    found = asked("prune", "max_mb=0.5")
    assert kinds(found) == ["stages"]
    left = {one["kind"]: one for one in asked("show")["kept"]}
    assert left["scores"]["entries"] == 500
    assert 0 < left["stages"]["entries"] == 1000 - found["removed"][0]["entries"]
    assert left["scores"]["bytes"] + left["stages"]["bytes"] <= 0.5 * (1 << 20)
    assert kinds(asked("prune", "cache.stages_max_mb=0.1")) == ["stages"]
    assert {one["kind"]: one["bytes"] for one in asked("show")["kept"]}["stages"] <= 0.1 * (1 << 20)


def test_prune_without_a_limit_only_tidies_up(full: Path, asked: Callable, told: Callable) -> None:
    killed = full / "vectors" / f"{SET_ASIDE}gone-0123456789ab-01"
    killed.mkdir()
    (killed / "vectors.f32").write_bytes(bytes(1000))
    os.utime(killed, (1e9, 1e9))
    found = asked("prune")
    assert [one["reason"] for one in found["removed"]] == ["left by a process that was killed"]
    assert not killed.exists()
    nothing = f"nothing to remove in {full} without a limit: max_mb=1000, older_than_days=30, or both\n"
    assert told("prune") == nothing


def test_prune_removes_expired_scores_and_a_damaged_file(
    storage_root: Path, asked: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, cache = time.time(), ScoreCache(storage_root)
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now - 31 * DAY_S)
        cache.keep_scores("remote", PAIRS[:9], np.arange(9.0), expires=True)
        cache.keep_scores("local", PAIRS[:5], np.arange(5.0), expires=False)
        cache.close()
    damaged = storage_root / "scores.sqlite.damaged"
    damaged.write_bytes(bytes(3 << 20))
    found = asked("prune")
    assert [(one["kind"], one["entries"]) for one in found["removed"]] == [("scores", 9)]
    assert found["freed_bytes"] >= 3 << 20
    assert not damaged.exists()


def test_who_has_the_caches_open_goes_on(full: Path, asked: Callable) -> None:
    cache, store = ScoreCache(full), VectorStore(full, "new", 100)
    mapped = store._rows.file["vectors"]
    assert not np.isnan(cache.scored("model", PAIRS)[0]).any()
    asked("clear", "what=all")
    assert np.isnan(cache.scored("model", PAIRS)[0]).all()
    assert (mapped == 1).all()
    assert store.find(text_keys(["new 0"])).tolist() == [-1]
    store.append(text_keys(["new 0"]), np.full((1, 100), 2, np.float32))
    cache.keep_scores("model", PAIRS, np.arange(500.0), expires=False)
    cache.close()
    assert ScoreCache(full).scored("model", PAIRS)[0].tolist() == list(range(500))
    assert len(VectorStore(full, "new", 100)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shwo"], "task.action: found 'shwo'; choices: show, prune, clear. Did you mean 'show'?"),
        (
            ["clear", "what=score"],
            "task.what: found 'score'; choices: scores, stages, vectors, token_vectors, sparse_vectors,",
        ),
        (["clear", "what=score"], "Did you mean 'scores'?"),
        (["clear", "what=[]"], "task.what: found []; expected one or more of: scores,"),
        (["prune", "max_mb=-1"], "task.max_mb: found -1; expected a number of 0 or more, or null"),
        (["prune", "older_than_days=soon"], "task.older_than_days: found 'soon'; expected a number of 0 or more"),
        (["clear", "max_mb=1"], "task.max_mb: found 1 with clear; it is an option of prune"),
        (["show", "what=models"], "task.what: is an option of prune and clear; show lists all"),
        (["prune", "dry_run=maybe"], "task.dry_run: found 'maybe'; expected true or false"),
        (["show", "format=trec"], "format: found trec; cache ranks no documents. Choices: table, json"),
        (["show", "cache.max_mb=0"], "cache.max_mb: found 0.0; expected a number above 0, or null for no limit"),
        (["show", "cache.remote_days=-2"], "cache.remote_days: found -2.0; expected a number above 0"),
    ],
)
def test_mistakes_are_named_with_the_choices(told: Callable, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        told(*words)
    assert message in str(error.value)


def test_the_command_shows_removes_and_explains(full: Path, orchestrate: Callable) -> None:
    done = orchestrate("cache")
    assert done.code == 0, done.err
    assert f"in {full}" in done.out
    assert "token vectors" in done.out
    assert "tuned *" in done.out
    assert "* never removed by prune or clear" in done.out
    done = orchestrate("cache", "prune", "max_mb=0", "what=[models,indexes]", "format=json")
    assert done.code == 0, done.err
    assert kinds(json.loads(done.out)) == ["models", "indexes"]
    done = orchestrate("cache", "shwo")
    assert (done.code, done.out) == (2, "")
    assert done.err == "orchestrate: task.action: found 'shwo'; choices: show, prune, clear. Did you mean 'show'?\n"
    done = orchestrate("cache", "show", "models")
    assert (done.code, done.out) == (2, "")
    assert "unexpected word 'models': cache takes one argument, what to do" in done.err
    assert list(Path.cwd().iterdir()) == [], "no folder for a run"


def test_the_installed_script_knows_the_verb(full: Path, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("orchestrate")
    done = subprocess.run([script, "cache", "clear", "format=json"], cwd=tmp_path, capture_output=True, check=True)
    assert len(json.loads(done.stdout)["removed"]) == 6
