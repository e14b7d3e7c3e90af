"""Every YAML file composes, and every `_target_` in it resolves. A new file is covered by existing."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from orchestrator import Pipeline
from orchestrator.config import schema
from orchestrator.errors import ConfigError
from orchestrator.services.spending import Price
from orchestrator.stack.routes import routes_of

CONF = Path(str(files("orchestrator.conf")))


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    schema.register()
    with initialize_config_module("orchestrator.conf", version_base="1.3"):
        return compose("config", overrides=list(overrides))


def targets(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield str(value["_target_"])
        for child in value.values():
            yield from targets(child)
    elif isinstance(value, list):
        for child in value:
            yield from targets(child)


ALL = [
    *(f"pipeline={name}" for name in options("pipeline")),
    *(f"+scenario={name}" for name in options("scenario")),
    *(f"corpus={name}" for name in options("corpus")),
    *(f"task={name}" for name in options("task")),
]


@pytest.mark.parametrize("override", ALL)
def test_every_choice_composes_and_builds(override: str) -> None:
    path = ["corpus.path=docs"] if override == "corpus=files" else []
    pipeline = Pipeline.from_config(composed(override, *path))
    assert pipeline.graph.result.top_k >= 1


@pytest.mark.parametrize("override", [word for word in ALL if "scenario" in word or "pipeline" in word])
def test_every_shipped_stack_is_free_of_lint(override: str) -> None:
    """What this machine lacks, and remarks, say nothing against a stack."""
    findings = Pipeline.from_config(composed(override)).lint()
    assert [finding for finding in findings if finding.severity == "warning"] == []


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_target_resolves(path: Path) -> None:
    for target in targets(OmegaConf.to_container(OmegaConf.load(path), resolve=False)):
        assert callable(get_object(target))


@pytest.mark.parametrize("group", ["pipeline", "scenario", "model", "task", "corpus", "decision", "cost", "prices"])
def test_every_file_starts_with_its_command(group: str) -> None:
    for path in (CONF / group).glob("*.yaml"):
        first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
        assert first.startswith("# orchestrate "), path


@pytest.mark.parametrize("name", options("scenario"))
def test_every_scenario_says_its_stack_and_when_to_use_it(name: str) -> None:
    text = (CONF / "scenario" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n# orchestrate +scenario=" + name)
    assert "\n# Stack: " in text
    assert "\n# When: " in text
    assert "stages" not in text, "a scenario never reaches into pipeline.stages"


@pytest.mark.parametrize("name", options("pipeline"))
def test_stage_names_come_from_one_vocabulary(name: str) -> None:
    stages = composed(f"pipeline={name}").pipeline.stages
    named = {str(stage).partition("_")[0] for stage in stages}  # precise_zh: the route of a language
    assert named <= {"bm25", "pairs", "sparse", "dense", "tokens", "fused", "shortlist", "precise"}


STACKS = {"embedder": "two_stage", "reranker": "two_stage", "multi_vector": "late_interaction", "sparse": "sparse"}


@pytest.mark.parametrize("role", STACKS)
def test_every_model_card_is_honest(role: str) -> None:
    for name in options("model"):
        card = OmegaConf.load(CONF / "model" / f"{name}.yaml")
        kind = card.get("role", "sparse")  # bm25 has no weights, and so no card
        assert kind in STACKS
        for figure in card.get("published") or []:
            assert figure.source, f"{name}: a published figure without its source"
        if kind == role:
            missing = [f"models.{role}.{key}=http://nowhere" for key in card if OmegaConf.is_missing(card, key)]
            Pipeline.from_config(composed(f"model@models.{role}={name}", f"pipeline={STACKS[role]}", *missing))


@pytest.mark.parametrize("name", options("rerank"))
def test_every_rerank_is_one_override_away(name: str) -> None:
    node = OmegaConf.load(CONF / "rerank" / f"{name}.yaml")
    values = {"boosts": "{fresh: {field: date, recency: {half_life_days: 30}}}"}
    missing = [
        f"pipeline.stages.precise.use.{key}={values.get(str(key), 'http://nowhere')}"
        for key in node
        if OmegaConf.is_missing(node, key)
    ]
    pipeline = Pipeline.from_config(
        composed(f"rerank@pipeline.stages.precise.use='{name}'", "pipeline=cross_encoder", *missing)
    )
    assert pipeline.graph["precise"].kind == "rerank"


@pytest.mark.parametrize("name", options("prices"))
def test_every_price_has_its_source(name: str) -> None:
    table = OmegaConf.to_container(OmegaConf.load(CONF / "prices" / f"{name}.yaml"))
    assert isinstance(table, dict)
    for model, row in table.items():
        assert row["source"], model
        assert Price.of(table, str(model)).known, model


@pytest.mark.parametrize("name", options("rerank"))
def test_a_shipped_rerank_that_costs_money_has_its_price(name: str) -> None:
    node = OmegaConf.load(CONF / "rerank" / f"{name}.yaml")
    if str(node._get_node("prices")) == "${prices}":
        table = OmegaConf.load(CONF / "prices" / "default.yaml")
        assert node.name in table


def test_a_swap_leaves_nothing_behind() -> None:
    cfg = composed("pipeline=bi_encoder", "rerank@pipeline.stages.shortlist.use='null'")
    assert dict(cfg.pipeline.stages.shortlist.use) == {"_target_": "orchestrator.plugins.rerank.null.NullRerank"}


def test_a_stage_can_be_dropped() -> None:
    pipeline = Pipeline.compose(["pipeline=two_stage", "~pipeline.stages.shortlist"])
    assert [node.name for node in pipeline.graph.nodes][-2:] == ["fused", "precise"]


def test_stages_of_one_model_share_one_embedder() -> None:
    graph = Pipeline.compose(["pipeline=bi_encoder"]).graph
    assert graph["dense"].stage.embedder is graph["shortlist"].stage.embedder  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+pipeline.stages.fused.use.kk=3"],
            r"^pipeline\.stages\.fused\.use\.kk: ReciprocalRankFusion takes no argument 'kk'; arguments: k, weights",
        ),
        (["pipeline.stages.fused.use.k=-1"], r"^pipeline\.stages\.fused\.use\.k: -1 is no number of 0 or more"),
        (
            ["+pipeline.stages.fused.use.weights.dens=2"],
            r"^pipeline\.stages\.fused\.use\.weights\.dens: .*Did you mean 'dense'",
        ),
        (
            ["pipeline.stages.fused.use._target_=orchestrator.plugins.fusion.rrf.Nothing"],
            r"^pipeline\.stages\.fused\.use\._target_: cannot import",
        ),
        (
            ["pipeline.stages.fused.inputs=[bm25,dens]"],
            r"^pipeline\.stages\.fused\.inputs\[1\]: no stage 'dens'; stages: .*Did you mean 'dense'\?",
        ),
        (["+models.embedder.pth=x"], r"^models\.embedder\.pth: OnnxEmbed takes no argument 'pth'; arguments: "),
        (
            ["pipeline=cross_encoder", "model@models.reranker=local"],
            r"^models\.reranker\.path: missing; set it: models\.reranker\.path=",
        ),
        (["corpus.path=???"], r"^corpus\.path: missing"),
        (
            ["model@models.embedder=openai_3_small", "models.embedder.api_key=sk-secret"],
            r"^models\.embedder\.api_key: a key itself, which every run's folder would keep; write \$\{oc\.env:NAME\}",
        ),
        (
            ["model@models.embedder=openai_compatible"],
            r"^models\.embedder\.base_url: missing; set it: models\.embedder\.base_url=",
        ),
    ],
)
def test_mistakes_name_their_path(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline.compose(overrides)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("{extra: {top_k: 3}}", r"^pipeline\.stages\.extra\.use: missing; say what the stage is"),
        (
            "{bm25: {use: {_target_: orchestrator.plugins.rerank.null.NullRerank}}}",
            r"^pipeline\.stages\.bm25\.top_k: missing",
        ),
        ("{bm25: {top_k: 3, use: {k1: 0.9}}}", r"^pipeline\.stages\.bm25\.use: dict has none of the methods"),
        ("{}", r"^pipeline\.stages: no stage"),
    ],
)
def test_a_pipeline_file_of_ones_own_gets_the_same_errors(stages: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "mine.yaml").write_text(f"stages: {stages}\n")
    with pytest.raises(ConfigError, match=message):
        Pipeline.compose(["pipeline=mine"], config_dir=tmp_path)


@pytest.mark.parametrize(
    ("slot", "card", "belongs", "pipeline"),
    [
        ("reranker", "minilm", "embedder", "cross_encoder"),
        ("reranker", "splade_v3", "sparse", "cross_encoder"),
        ("reranker", "bm25", "sparse", "cross_encoder"),
        ("embedder", "ms_marco_minilm_l6", "reranker", "dense"),
        ("embedder", "minilm_tokens", "multi_vector", "dense"),
        ("sparse", "minilm", "embedder", "sparse"),
        ("multi_vector", "bge_reranker_base", "reranker", "late_interaction"),
    ],
)
def test_a_model_in_the_slot_of_another_kind_is_refused(slot: str, card: str, belongs: str, pipeline: str) -> None:
    with pytest.raises(ConfigError, match=rf"models\.{slot}: found .*, which belongs into models\.{belongs}; expected"):
        Pipeline.from_config(composed(f"model@models.{slot}={card}", f"pipeline={pipeline}"))


def test_a_card_that_nothing_runs_is_refused_in_its_own_slot() -> None:
    words = ["model@models.embedder=local", "models.embedder.role=embedder", "models.embedder.path=/x"]
    with pytest.raises(ConfigError, match=r"models\.embedder: found /x, which nothing runs; expected"):
        Pipeline.from_config(composed("pipeline=dense", *words))


@pytest.mark.parametrize("name", ["llm_compatible", "llm_point_compatible", "llm_azure"])
@pytest.mark.parametrize("key", ["base_url", "name"])
def test_another_server_is_never_silently_openai(name: str, key: str) -> None:
    given = {"base_url": "http://nowhere/v1", "name": "m"}
    del given[key]
    words = [f"pipeline.stages.precise.use.{other}={value}" for other, value in given.items()]
    with pytest.raises(ConfigError, match=rf"pipeline\.stages\.precise\.use\.{key}: missing; set it"):
        Pipeline.from_config(composed("pipeline=llm", f"rerank@pipeline.stages.precise.use={name}", *words))


def test_the_routes_of_languages_have_models_of_their_own() -> None:
    overrides = ["pipeline=by_language", "corpus.language=und", "model@models.reranker_zh=bge_reranker_v2_m3"]
    pipeline = Pipeline.compose([*overrides, "models.reranker_zh.path=nowhere"])
    routes = routes_of(pipeline.graph)
    assert list(routes) == ["precise_en", "precise_zh", "precise_other"]
    models = {name: pipeline.graph[name].stage.model for name in routes}  # type: ignore[union-attr]
    assert [(model.key, model.name) for model in models.values()] == [
        ("models.reranker_en", "cross-encoder/ms-marco-MiniLM-L6-v2"),
        ("models.reranker_zh", "BAAI/bge-reranker-v2-m3"),
        ("models.reranker_other", "cross-encoder/mmarco-mMiniLMv2-L12-H384-v1"),
    ]
    missing = [finding.message for finding in pipeline.lint() if finding.path == "pipeline.stages.precise_zh.use"]
    assert missing == [
        "models.reranker_zh.path is nowhere, which questions in zh, zh-en need: no such folder. Expected a folder with "
        "the model's files"
    ]


def test_the_command_of_the_pipeline_by_language_searches_with_a_model_of_many_languages() -> None:
    command = (CONF / "pipeline" / "by_language.yaml").read_text().splitlines()[0]
    pipeline = Pipeline.compose([word for word in command.split() if "=" in word])
    assert pipeline.graph["dense"].stage.embedder.languages == ("multilingual",)  # type: ignore[union-attr]


@pytest.mark.parametrize("written", ["zh", "[zh]", "[zh,'zh']"])
def test_a_gate_takes_one_language_or_a_list(written: str) -> None:
    pipeline = Pipeline.compose(["pipeline=gated", f"pipeline.stages.precise.when.language={written}"])
    assert pipeline.graph["precise"].when.language == ("zh",)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("language=chinese", r"^pipeline\.stages\.precise\.when\.language: found 'chinese'; .* Did you mean 'zh'\?$"),
        ("not_language=[en,jp]", r"^pipeline\.stages\.precise\.when\.not_language\[1\]: .* Did you mean 'ja'\?$"),
    ],
)
def test_a_language_that_is_none_names_its_path(written: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline.compose(["pipeline=gated", f"pipeline.stages.precise.when.{written}"])
