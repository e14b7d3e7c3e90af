"""What the command line's words become before Hydra sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from orchestrator.config.words import Verbs, find_verbs, for_jobs_only, quote, rewrite, rewrite_completion, stack_words
from orchestrator.errors import ConfigError

VERBS = Verbs(
    {"run": ["verb", "text_chars"], "index": ["verb", "force"], "evaluate": ["verb", "depth"], "check": ["verb"]},
    {"task", "corpus", "pipeline", "models", "budget_ms", "query", "format", "scenario", "hydra", "model", "need"},
    ["latency_ms", "allow", "depth"],
)


def as_hydra_reads(word: str) -> object:
    """The value of an override as it stands in the configuration."""
    override = OverridesParser.create().parse_override(word)
    assert not override.is_sweep_override(), f"{word!r} would become a sweep"
    cfg = OmegaConf.create({"value": None})
    OmegaConf.update(cfg, "value", override.value())
    return cfg.value


@example("\\\n")
@given(st.text(st.characters(codec="utf-8")) | st.text("\\'${}\"a ,=\n"))
def test_a_quoted_text_comes_out_as_it_went_in(text: str) -> None:
    assert as_hydra_reads("query=" + quote(text)) == text


@pytest.mark.parametrize("verb", ["run", "index", "evaluate", "check"])
def test_a_bare_verb_becomes_the_task(verb: str) -> None:
    assert f"task={verb}" in rewrite([verb], VERBS)


def test_what_to_train_is_an_argument_and_never_an_override() -> None:
    verbs = Verbs({**VERBS.options, "train": ["verb", "what", "seed"]}, VERBS.root_keys)
    assert rewrite(["train", "fusion", "seed=3"], verbs) == ["task=train", "task.what='fusion'", "task.seed=3"]
    assert rewrite(["train", "fusion", "sead=3"], verbs)[-1] == "sead=3", "left to Hydra, which names the key"
    with pytest.raises(ConfigError, match="train takes one argument, what to train"):
        rewrite(["train", "fusion", "now"], verbs)


def test_what_to_do_with_the_cache_is_an_argument(tmp_path: Path) -> None:
    verbs = find_verbs([])
    words = rewrite(["cache", "prune", "max_mb=5", "cache.max_mb=9"], verbs, str(tmp_path))
    assert words[:2] == ["task=cache", "task.action='prune'"]
    assert words[-2:] == ["task.max_mb=5", "cache.max_mb=9"]
    assert "hydra.output_subdir=null" in words
    with pytest.raises(ConfigError, match="unexpected word 'now': cache takes one argument, what to do"):
        rewrite(["cache", "prune", "now"], verbs)


def test_the_words_of_the_stack_are_those_that_another_verb_needs() -> None:
    words = ["task=run", "query='x'", "+scenario=learned", "corpus.path=a", "corpus.split=test", "format=json"]
    words += ["task.depth=3", "hydra.run.dir=x", "~pipeline.stages.shortlist", "corpus.max_queries=3"]
    assert stack_words(words) == ["+scenario=learned", "corpus.path=a", "~pipeline.stages.shortlist"]


def test_no_word_at_all_is_left_to_the_default() -> None:
    assert rewrite([], VERBS) == []


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "evaluate", "format=json"],
        ["--cfg", "job", "evaluate"],
        ["--config-dir", "run", "evaluate"],
        ["evaluate", "--config-dir", "run"],
        ["+scenario=edge", "evaluate", "-cn", "config"],
    ],
)
def test_the_values_of_hydras_flags_are_no_verbs(words: list[str]) -> None:
    assert [word for word in rewrite(words, VERBS) if word.startswith("task=")] == ["task=evaluate"]


def test_a_verbs_own_option_is_prefixed_and_a_root_key_is_not() -> None:
    words = rewrite(["index", "force=true", "corpus.path=docs", "format=json"], VERBS)
    assert words == ["task=index", "task.force=true", "corpus.path=docs", "format=json"]


@pytest.mark.parametrize("verb", ["run", "index", "check"])
def test_what_a_decision_needs_is_prefixed_with_every_verb(verb: str) -> None:
    words = rewrite([verb, "latency_ms=25,150", "need.allow=[hub]"], VERBS)
    assert words[-2:] == ["need.latency_ms=25,150", "need.allow=[hub]"]


def test_a_question_may_name_what_a_decision_needs() -> None:
    assert rewrite(["run", "why?", "latency_ms=150"], VERBS)[-1] == "need.latency_ms=150"


def test_a_key_of_two_nodes_is_refused_with_both_named() -> None:
    with pytest.raises(ConfigError, match=r"^depth: there are task\.depth and need\.depth with the verb evaluate; say"):
        rewrite(["evaluate", "depth=50"], VERBS)
    assert rewrite(["evaluate", "task.depth=50"], VERBS) == ["task=evaluate", "task.depth=50"]
    assert rewrite(["run", "depth=50"], VERBS) == ["task=run", "need.depth=50"]


def test_no_shipped_verb_has_an_option_that_need_has_too() -> None:
    verbs = find_verbs([])
    assert not {option for options in verbs.options.values() for option in options} & set(verbs.need)


def test_another_verbs_option_is_left_for_hydra_to_refuse() -> None:
    assert rewrite(["run", "force=true"], VERBS) == ["task=run", "force=true"]


def test_null_is_a_reranker_not_nothing() -> None:
    swap = "rerank@pipeline.stages.precise.use"
    assert rewrite([f"{swap}=null"], VERBS) == [f"{swap}='null'"]
    assert rewrite([f"{swap}=null,cross_encoder"], VERBS) == [f"{swap}='null',cross_encoder"]


def test_a_misspelt_key_after_run_is_no_question() -> None:
    assert rewrite(["run", "formt=json"], VERBS) == ["task=run", "formt=json"]


def test_run_takes_the_question() -> None:
    (task, query) = rewrite(["run", "what's up, doc?"], VERBS)
    assert task == "task=run"
    assert as_hydra_reads(query) == "what's up, doc?"


@pytest.mark.parametrize(
    "question", ["a=b is an equation", "-dash first", "--help me", "x = y", "~tilde, really", "x=1", "~tilde"]
)
def test_a_question_may_look_like_an_override_or_a_flag(question: str) -> None:
    (_, query) = rewrite(["run", question], VERBS)
    assert as_hydra_reads(query) == question


def test_a_question_is_no_key_that_is_dropped_however_like_one_it_looks() -> None:
    verbs = Verbs({**VERBS.options, "train": ["verb", "what", "triples"]}, VERBS.root_keys)
    (_, query) = rewrite(["run", "~tilde"], verbs)
    assert as_hydra_reads(query) == "~tilde"
    assert "~budget_ms" in rewrite(["run", "~budget_ms"], Verbs(VERBS.options, [*VERBS.root_keys, "budget_ms"]))


@pytest.mark.parametrize("value", ["/data/my docs (1)", "/データ/文書", "C:\\docs", "it's"])
def test_values_that_hydra_cannot_parse_are_quoted(value: str) -> None:
    (word,) = rewrite([f"corpus.path={value}"], VERBS)
    assert as_hydra_reads(word) == value


@pytest.mark.parametrize(
    "word", ["a.b=1,2,3", "a=choice(1,2)", "a=[1,2]", "a={b:1}", "a='x y'", "~a", "++a.b=1", "a@b=c"]
)
def test_what_hydra_understands_is_left_alone(word: str) -> None:
    assert rewrite([word], VERBS) == [word]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evalute"], r"unknown verb 'evalute'; verbs: run, index, evaluate, check\. Did you mean 'evaluate'\?"),
        (["what is it?"], r'To ask it: orchestrate run "what is it\?"'),
        (["run", "two", "words"], r"unexpected word 'words': run takes one argument, the query"),
        (["index", "docs"], r"unexpected word 'docs': index takes no argument"),
    ],
)
def test_mistakes_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rewrite(words, VERBS)


@pytest.mark.parametrize("verb", ["check", "plan"])
def test_verbs_that_run_nothing_keep_no_folder(verb: str) -> None:
    assert {"hydra.output_subdir=null", "hydra.run.dir=."} <= set(rewrite([verb], find_verbs([])))


def test_the_shipped_verbs_and_root_keys_are_found() -> None:
    verbs = find_verbs([])
    assert {"run", "index", "evaluate", "check", "plan"} <= set(verbs.options)
    assert "defaults" not in verbs.options["plan"]
    assert {"latency_ms", "candidates", "language", "priority", "device", "doc_tokens", "allow"} <= set(verbs.need)
    assert "force" in verbs.options["index"]
    assert {"corpus", "scenario", "pipeline", "budget_ms"} <= set(verbs.root_keys)


@pytest.mark.parametrize(
    ("typed", "hydra_sees"),
    [
        ("orchestrate evaluate pipeline=", "orchestrate task=evaluate pipeline="),
        ("orchestrate -m index corpus=sample mod", "orchestrate -m task=index corpus=sample mod"),
        ("orchestrate pipeline=b", "orchestrate pipeline=b"),
        ("orchestrate eval", "orchestrate eval"),
    ],
)
def test_shell_completion_sees_the_verb_as_hydra_does(typed: str, hydra_sees: str) -> None:
    assert rewrite_completion(typed, VERBS) == hydra_sees


def test_only_the_jobs_of_a_sweep_get_what_depends_on_the_choices_of_each() -> None:
    late = [
        "+pipeline.stages.a.use.k=1",
        "~pipeline.stages.b",
        "rerank@pipeline.stages.c.use=x",
        "models.reranker.path=y",
        "model@models.reranker=z",
    ]
    now = ["-m", "pipeline=a,b", "model=z", "budget_ms=5"]
    assert for_jobs_only([*late, *now]) == (now, [*late])
    assert for_jobs_only([*late, *now[1:]]) == ([*late, *now[1:]], []), "a single run composes with its own choices"
    assert for_jobs_only([*late, *now, "hydra/sweeper=optuna"])[1] == [], "another sweeper does not know of them"


def test_a_key_itself_is_refused_before_anything_keeps_it() -> None:
    key = "pipeline.stages.precise.use.api_key"
    with pytest.raises(ConfigError, match=rf"^{key}: a key itself") as caught:
        rewrite(["run", "x", f"{key}=sk-secret"], VERBS)
    assert "sk-secret" not in str(caught.value)
    assert rewrite([f"{key}=null"], VERBS) == [f"{key}=null"]
    assert as_hydra_reads(rewrite([f"{key}='${{oc.env:HOME}}'"], VERBS)[0])


@pytest.mark.parametrize(
    ("word", "measures"),
    [
        ("measures=[nDCG@10,RBP(p=0.9,rel=1)]", ["nDCG@10", "RBP(p=0.9,rel=1)"]),
        ("task.measures=[ AP(rel=2) , 'P@5' ]", ["AP(rel=2)", "P@5"]),
        ("measures=[nDCG(gains={0:0,1:2})@10]", ["nDCG(gains={0:0,1:2})@10"]),
        ("measures=[nDCG@10,AP]", ["nDCG@10", "AP"]),
        ("measures=INSQ(max_rel=3)", "INSQ(max_rel=3)"),
    ],
)
def test_measures_may_have_parentheses(word: str, measures: object) -> None:
    verbs = Verbs({"evaluate": ["verb", "measures"]}, VERBS.root_keys)
    assert as_hydra_reads(rewrite(["evaluate", word], verbs)[-1]) == measures


LANGUAGE_VERBS = Verbs({**VERBS.options, "plan": ["verb"]}, {*VERBS.root_keys}, [*VERBS.need, "language"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "眼压高会怎样?", "language=auto"], "corpus.language=auto"),
        (["evaluate", "language=zh"], "corpus.language=zh"),
        (["language=de"], "corpus.language=de"),
        (["plan", "language=zh"], "need.language=zh"),
        (["plan", "language=auto"], "corpus.language=auto"),
        (["run", "x", "+scenario=auto", "language=zh"], "need.language=zh"),
        (["-m", "evaluate", "+scenario=balanced,auto", "language=zh"], "need.language=zh"),
        (["run", "x", "+scenario=by_language", "language=zh"], "corpus.language=zh"),
        (["plan", "corpus.language=zh"], "corpus.language=zh"),
        (["run", "x", "need.language=zh"], "need.language=zh"),
    ],
)
def test_a_language_is_the_corpuss_or_what_a_decision_goes_by(words: list[str], expected: str) -> None:
    assert [word for word in rewrite(words, LANGUAGE_VERBS) if "language=" in word] == [expected]
