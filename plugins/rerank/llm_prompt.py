"""What a language model is shown: instructions from the YAML, and documents that cannot pass for instructions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from orchestrator.errors import ConfigError

_PLACEHOLDERS = ("{query}", "{documents}", "{n}")


def messages(prompt: Mapping[str, str], query: str, texts: Sequence[str]) -> list[dict[str, str]]:
    """The system and the user message of one request.

    Args:
        prompt: `system` and `user`, with placeholders.
        query: the question.
        texts: of the documents, numbered from 1.
    """
    values = dict(zip(_PLACEHOLDERS, (query, fenced(query, texts), str(len(texts))), strict=True))
    return [{"role": role, "content": _filled(prompt[role], values)} for role in ("system", "user")]


def fenced(query: str, texts: Sequence[str]) -> str:
    """The documents, each between marks with its number and a word that no document can know.

    The word is a digest of all that is shown, so that a text which holds it cannot be written; and it is the same for
    the same request, which keeps replies of a deterministic model the same.
    """
    word = blake2b("\0".join([query, *texts]).encode("utf-8", "replace"), digest_size=6).hexdigest()
    return "\n".join(f"<document {n} {word}>\n{text}\n</document {n} {word}>" for n, text in enumerate(texts, start=1))


def _filled(template: str, values: Mapping[str, str]) -> str:
    """`template` with its placeholders filled in at once, so that a `{query}` within a document stays as it is."""
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], template)


def check_instructions(instructions: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse instructions that lack a part.

    Raises:
        ConfigError: a message is missing, or does not say where the question or the documents go.
    """
    if not instructions:
        raise ConfigError("instructions", "empty; expected a language with `system` and `user`")
    for language, parts in instructions.items():
        for key in ("system", "user"):
            if not isinstance(parts, Mapping) or not isinstance(parts.get(key), str):
                raise ConfigError(f"instructions.{language}.{key}", "missing; expected a text")
        for name in ("{query}", "{documents}"):
            if name not in parts["user"]:
                raise ConfigError(f"instructions.{language}.user", f"does not say where {name} goes")
