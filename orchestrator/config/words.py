"""Rewrites the words of a command line for Hydra: the verb, its argument, short keys, and values to be quoted."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from orchestrator.errors import ConfigError, did_you_mean

ARGUMENTS: Mapping[str, str] = {
    "run": "query",
    "explain": "query",
    "train": "task.what",
    "cache": "task.action",
    "report": "task.folder",
}
"""Verbs that take one bare argument, and the key it becomes."""
FREE_TEXT = frozenset({"run", "explain"})
"""Verbs whose argument may be any text, even one that looks like an override."""
_ARGUMENT_WORDS = {"cache": "what to do", "report": "the folder of an evaluation or a sweep"}
NO_FOLDER = frozenset({"check", "plan", "cache", "report"})
"""Verbs that keep nothing, so no folder is made for their run."""

SECRETS = frozenset({"api_key"})
"""Keys whose value never stands in a configuration, only the name of the variable that holds it."""

_IDS = frozenset({"task.doc", "task.query_id"})
_LISTS = frozenset({"task.measures"})
"""Keys whose value is a list of words that may have parentheses."""
_PLAIN_ID = re.compile(r"[\w.+-]+")
"""An id that Hydra would perhaps take for a number: 007, 1e3."""

_FLAGS_WITH_VALUE = frozenset(
    {"-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir", "-p", "--package"}
    | {"-c", "--cfg", "-i", "--info", "--experimental-rerun"}
)
_BARE_NULL = re.compile(r"(?<![\w'\"])null(?![\w'\"])")
_MULTIRUN = frozenset({"-m", "--multirun"})
_DEPENDS_ON_CHOICES = re.compile(r"^[+~]*([\w/]+@)?(pipeline\.stages|models)\.")
"""Keys that exist or not by what is chosen elsewhere, so that only a whole job can tell."""
_DECIDES = re.compile(r"^\+?scenario=(.*\W)?auto\b")
_LANGUAGE = re.compile(r"^(\+{0,2})(language=(.*))$", re.DOTALL)
_OVERRIDE = re.compile(r"^(?P<prefix>\+{0,2}|~)(?P<key>[^=\s]+)=(?P<value>.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs there are.

    Attributes:
        options: verb -> the keys of its own node in conf/task.
        root_keys: keys of the root of the configuration, and groups.
        need: keys of the root's node `need`.
    """

    options: Mapping[str, Collection[str]]
    root_keys: Collection[str]
    need: Collection[str] = ()


def rewrite(words: Sequence[str], verbs: Verbs, sweep_dir: str = "multirun") -> list[str]:
    """The words Hydra is given.

    Args:
        words: as typed, without the program's name.
        verbs: what can be typed.
        sweep_dir: where a sweep of a verb that keeps nothing may leave what Hydra writes all the same.

    Raises:
        ConfigError: a bare word is no verb, or a verb is given an argument it does not take.
    """
    bare, flags, overrides = _sort(words, verbs)
    _refuse_secrets(overrides)
    verb = _verb(bare, verbs)
    extra = [f"task={verb}"] if bare else []
    if len(bare) > 1:
        extra.append(f"{ARGUMENTS[verb]}={quote(bare[1])}")
    if verb in NO_FOLDER:
        extra += ["hydra.output_subdir=null", "hydra.run.dir=.", f"hydra.sweep.dir={quote(sweep_dir)}"]
    decides = verb == "plan" or any(_DECIDES.match(word) for word in overrides)
    named = [_of_corpus(word, decides) for word in overrides]
    return [*flags, *extra, *(_override(word, verb, verbs) for word in named)]


def _of_corpus(word: str, decides: bool) -> str:
    """`language=zh` as the corpus's own; a decision goes by it as it is given, unless it is to be found out first."""
    found = _LANGUAGE.match(word)
    return f"{found[1]}corpus.{found[2]}" if found and (not decides or found[3] == "auto") else word


def _refuse_secrets(overrides: Sequence[str]) -> None:
    """Before Hydra keeps the words in the folder of the run; what stands in a file is refused when it is built."""
    for word in overrides:
        key, _, value = word.partition("=")
        if key.rpartition(".")[2] in SECRETS and value not in ("", "null") and "${" not in value:
            found = "a key itself, which every run's folder would keep"
            raise ConfigError(
                key.lstrip("+"), f"{found}; write '${{oc.env:NAME}}', its variable, in quotes of the shell"
            )


def for_jobs_only(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the words for Hydra, those it is to be given, and those that only the jobs of a sweep understand.

    Before it starts a sweep Hydra applies what is not swept to the default stack, where an override of a stage that
    only the swept pipelines have is an error. Our sweeper adds such words to every job; another one gets all words.
    """
    if _MULTIRUN.isdisjoint(words) or any(word.lstrip("+").startswith("hydra/sweeper=") for word in words):
        return list(words), []
    late = [word for word in words if _DEPENDS_ON_CHOICES.match(word)]
    return [word for word in words if word not in late], late


def rewrite_completion(line: str, verbs: Verbs) -> str:
    """The line that a shell wants completed, with the verb as Hydra knows it."""
    words = line.split(" ")
    for place, word in enumerate(words[1:-1], start=1):
        if word in verbs.options:
            words[place] = f"task={word}"
            break
    return " ".join(words)


def quote(text: str) -> str:
    """`text` as a quoted string of Hydra's grammar that comes out of the configuration as it went in.

    Hydra takes off backslashes only where they stand before a quote; OmegaConf takes `${` for an interpolation
    unless a backslash stands before it, and halves the backslashes before that.
    """
    if "${" in text:
        text = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", text)
    text = re.sub(r"(\\+)\Z", lambda found: found[1] * 2, text)
    return f"'{text}'"


def _sort(words: Sequence[str], verbs: Verbs) -> tuple[list[str], list[str], list[str]]:
    bare: list[str] = []
    flags: list[str] = []
    overrides: list[str] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word in _FLAGS_WITH_VALUE:
            flags.append(word)
            if waiting and not waiting[0].startswith("-"):
                flags.append(waiting.pop(0))
        elif _is_override(word, bare, verbs):
            overrides.append(word)
        elif (word.startswith("-") and not bare) or (
            word.startswith("-") and re.fullmatch(r"-{1,2}[a-z][\w=-]*", word)
        ):
            flags.append(word)
        else:
            bare.append(word)
    return bare, flags, overrides


def _is_override(word: str, bare: Sequence[str], verbs: Verbs) -> bool:
    """Where a question may stand, `x=1` and `~tilde` are one: a plain key that nobody knows, `x=` nor one like it."""
    found = _OVERRIDE.match(word) or re.match(r"^(?P<prefix>~)(?P<key>[\w@./:-]+)$", word)
    if found is None or not (len(bare) == 1 and bare[0] in FREE_TEXT):
        return found is not None
    key = found["key"]
    known = {*verbs.root_keys, *verbs.need, *(option for options in verbs.options.values() for option in options)}
    if re.fullmatch(r"\w+", key):
        if found.lastgroup == "key":  # `~tilde`: nobody drops a key of the root, so that a like one is no typo of it
            return key in known
        return key in known or found["prefix"].startswith("+") or (" " not in word and did_you_mean(key, known) != "")
    return re.fullmatch(r"[\w@./:-]+", key) is not None


def _verb(bare: Sequence[str], verbs: Verbs) -> str:
    if not bare:
        return "run"
    verb, *arguments = bare
    choices = ", ".join(verbs.options)
    if verb not in verbs.options:
        hint = did_you_mean(verb, verbs.options)
        if not hint and " " in verb:
            hint = f' To ask it: orchestrate run "{verb}"'
        raise ConfigError("", f"unknown verb '{verb}'; verbs: {choices}.{hint}")
    if len(arguments) > (1 if verb in ARGUMENTS else 0):
        extra = arguments[1:] if verb in ARGUMENTS else arguments
        takes = f"one argument, {_argument(verb)}" if verb in ARGUMENTS else "no argument"
        raise ConfigError("", f"unexpected word '{extra[0]}': {verb} takes {takes}")
    return verb


def _argument(verb: str) -> str:
    if verb in FREE_TEXT:
        return f"the {ARGUMENTS[verb]}; quote it as one word"
    return _ARGUMENT_WORDS.get(verb, f"what to {verb}")


def _override(word: str, verb: str, verbs: Verbs) -> str:
    found = _OVERRIDE.match(word)
    if found is None:
        return word
    prefix, key, value = found["prefix"], found["key"], found["value"]
    key = _full_key(key, verb, verbs)
    if key == "query" or (key in _IDS and _PLAIN_ID.fullmatch(value) and value != "null"):
        return f"{prefix}{key}={quote(value)}"
    if key.startswith("rerank@"):
        value = _BARE_NULL.sub("'null'", value)  # to Hydra a bare null is no choice at all, here it names a file
    if _parses(f"{key}={value}"):
        return f"{prefix}{key}={value}"
    is_list = key in _LISTS and value.startswith("[") and value.endswith("]")
    return f"{prefix}{key}={_quoted_list(value) if is_list else quote(value)}"


def _quoted_list(value: str) -> str:
    """`[nDCG@10,RBP(p=0.9)]` with every element quoted: Hydra takes parentheses for one of its functions."""
    elements, depth = [""], 0
    for letter in value.strip()[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            elements.append("")
        else:
            elements[-1] += letter
    words = [element.strip().strip("'\"") for element in elements]
    return f"[{','.join(quote(word) for word in words if word)}]"


def _full_key(key: str, verb: str, verbs: Verbs) -> str:
    """`key` with the node it is in before it: the verb's own options and `need` can be set without."""
    first = re.split(r"[.@/]", key, maxsplit=1)[0]
    if first in verbs.root_keys:
        return key
    nodes = [node for node, keys in (("task", verbs.options.get(verb, ())), ("need", verbs.need)) if first in keys]
    if len(nodes) > 1:
        both = " and ".join(f"{node}.{first}" for node in nodes)
        raise ConfigError(first, f"there are {both} with the verb {verb}; say which of the two")
    return f"{nodes[0]}.{key}" if nodes else key


def _parses(override: str) -> bool:
    """Whether Hydra's grammar takes it; spaces, parentheses and most letters outside ASCII need quotes there."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def value_of(word: str) -> object:
    """The value of an override, as Hydra's grammar reads it; None of one that takes away."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return None if word.startswith("~") else OverridesParser.create().parse_override(word).value()


_NOT_OF_THE_STACK = re.compile(r"^[+~]*(task|query|format|budget_ms|corpus\.(split|max_queries)|hydra|log)\b")


def stack_words(overrides: Sequence[str]) -> list[str]:
    """Those of `overrides` that choose stack, corpus and storage: what another verb needs to mean the same."""
    return [word for word in overrides if not _NOT_OF_THE_STACK.match(word)]


def given_words() -> list[str]:
    """The words of this process's command line that choose the stack; empty outside a command."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    return [*given_flags(), *stack_words(HydraConfig.get().overrides.task)]


_SEARCH_PATH = "hydra.searchpath=["


def given_flags() -> list[str]:
    """`--config-dir DIR` and `hydra.searchpath=[...]` of this process's command line, where they were given."""
    from hydra.core.hydra_config import HydraConfig

    flags = [word for folder in given_config_dirs() for word in ("--config-dir", str(folder))]
    return [*flags, *search_path([], HydraConfig.get().overrides.hydra)]


def given_config_dirs() -> list[Path]:
    """The folders that this process's command line named with `--config-dir`."""
    from hydra.core.hydra_config import HydraConfig

    sources = [source for source in HydraConfig.get().runtime.config_sources if source.provider == "command-line"]
    return [Path(source.path.removeprefix("file://")) for source in sources]


def given_search_paths() -> list[Path]:
    """The folders that this process's command line named in `hydra.searchpath`."""
    from hydra.core.hydra_config import HydraConfig

    words = search_path([], HydraConfig.get().overrides.hydra)
    values = [str(path) for word in words for path in cast(list[object], value_of(word))]
    return [Path(path.removeprefix("file://")) for path in values if path.startswith("file://")]


def is_search_path(word: str) -> bool:
    """Whether a word names folders with configs, as Hydra has it."""
    return word.startswith(_SEARCH_PATH)


def search_path(folders: Iterable[Path], words: Iterable[str]) -> list[str]:
    """One word for all folders with configs; none where there are none.

    Args:
        folders: to look in first.
        words: overrides, among them `hydra.searchpath=[...]` or not.
    """
    given = [word.removeprefix(_SEARCH_PATH).removesuffix("]") for word in words if is_search_path(word)]
    found = [*(quote(f"file://{folder.resolve()}") for folder in folders), *filter(None, given)]
    return [f"{_SEARCH_PATH}{','.join(found)}]"] if found else []


def find_verbs(config_dirs: Sequence[Path]) -> Verbs:
    """The verbs that the package and `config_dirs` hold, each a file in a folder `task`."""
    import dataclasses
    from importlib.resources import files

    from omegaconf import OmegaConf

    from orchestrator.config.schema import NeedSchema, RootSchema

    conf = files("orchestrator.conf")
    options: dict[str, list[str]] = {}
    for entry in sorted(conf.joinpath("task").iterdir(), key=lambda file: file.name):
        if entry.name.endswith(".yaml"):
            node = OmegaConf.create(entry.read_text(encoding="utf-8"))
            options[entry.name.removesuffix(".yaml")] = [str(key) for key in node if key != "defaults"]
    groups = [entry.name for entry in conf.iterdir() if entry.is_dir()]
    groups += [entry.name for folder in config_dirs if folder.is_dir() for entry in folder.iterdir() if entry.is_dir()]
    roots = [field.name for field in dataclasses.fields(RootSchema)]
    need = [field.name for field in dataclasses.fields(NeedSchema)]
    return Verbs(options, {*roots, *groups, "hydra"}, need)
