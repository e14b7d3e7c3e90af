"""What a language model is shown: instructions from the YAML, and documents that cannot pass for instructions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from orchestrator.errors import ConfigError


def messages(prompt: Mapping[str, str], values: Mapping[str, str]) -> list[dict[str, str]]:
    """The system and the user message of one request.

    Args:
        prompt: `system` and `user`, with placeholders.
        values: placeholder -> what stands in its place.
    """
    return [{"role": role, "content": _filled(prompt[role], values)} for role in ("system", "user")]


def fenced(query: str, texts: Sequence[str]) -> str:
    """The documents, each between marks with its number, from 1, and a word that no document can know.

    The word is a digest of all that is shown, so that a text which holds it cannot be written; and it is the same for
    the same request, which keeps replies of a deterministic model the same.
    """
    word = blake2b("\0".join([query, *texts]).encode("utf-8", "replace"), digest_size=6).hexdigest()
    return "\n".join(f"<document {n} {word}>\n{text}\n</document {n} {word}>" for n, text in enumerate(texts, start=1))


def _filled(template: str, values: Mapping[str, str]) -> str:
    """`template` with its placeholders filled in at once, so that a `{query}` within a document stays as it is."""
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], template)


def check_instructions(instructions: object, placeholders: Sequence[str], path: str = "instructions") -> None:
    """Refuse instructions that lack a part.

    Args:
        instructions: language -> `system` and `user`.
        placeholders: what `user` has to hold.
        path: of the instructions in the YAML.

    Raises:
        ConfigError: a message is missing, or does not say where something goes.
    """
    if not isinstance(instructions, Mapping) or not instructions:
        raise ConfigError(path, "empty; expected a language with `system` and `user`")
    for language, parts in instructions.items():
        for key in ("system", "user"):
            if not isinstance(parts, Mapping) or not isinstance(parts.get(key), str):
                raise ConfigError(f"{path}.{language}.{key}", "missing; expected a text")
        for name in placeholders:
            if name not in parts["user"]:
                raise ConfigError(f"{path}.{language}.user", f"does not say where {name} goes")
