"""Headings and front matter of Markdown files."""

from __future__ import annotations

import bisect
import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

SUFFIXES = (".md", ".markdown")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(?P<yaml>.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


class FrontMatterError(Exception):
    """The block between the two --- lines is no YAML mapping; says why."""


class Heading(NamedTuple):
    """A heading: its level from 1, its text without marks, and where in the file it stands, in characters."""

    level: int
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Outline:
    """The headings of one text, in order."""

    headings: Sequence[Heading]

    def path(self, place: int) -> tuple[Heading, ...]:
        """The headings that the character at `place` stands under, outermost first; one that begins there counts."""
        open_: list[Heading] = []
        count = bisect.bisect_right([heading.start for heading in self.headings], place)
        for heading in self.headings[:count]:
            while open_ and open_[-1].level >= heading.level:
                open_.pop()
            open_.append(heading)
        return tuple(open_)


def split_front_matter(text: str) -> tuple[dict[str, object], str]:
    """The values of the YAML block at the top, and the text after it; no values and all of the text without one.

    Raises:
        FrontMatterError: the block is no YAML mapping.
    """
    found = _FRONT_MATTER.match(text)
    if found is None:
        return {}, text
    import yaml

    try:
        values = yaml.safe_load(found["yaml"])
    except (yaml.YAMLError, ValueError) as error:
        raise FrontMatterError(" ".join(str(error).split())) from error
    if not isinstance(values, dict | None):
        return {}, text  # a thematic break, text, and another one
    return {str(key): value for key, value in (values or {}).items()}, text[found.end() :]


def outline(text: str) -> Outline:
    """The headings of `text`, by the rules of CommonMark: a # inside a code block is none."""
    starts = [0, *itertools.accumulate(map(len, _lines(text)))]
    headings = []
    tokens = _blocks().parse(text)
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open" and opening.level == 0 and opening.map is not None:
            first, last = opening.map
            headings.append(Heading(int(opening.tag[1:]), _plain(inline.content), starts[first], starts[last]))
    return Outline(headings)


def _lines(text: str) -> list[str]:
    """Lines with their ends as CommonMark counts them: by line feed and carriage return alone."""
    return re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+\Z", text)


@functools.cache
def _blocks() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark")
    parser.core.ruler.disable(["inline", "text_join"])  # only blocks are looked at: twice as fast
    return parser


@functools.cache
def _inline() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark")


def _plain(inline: str) -> str:
    (token,) = _inline().parseInline(inline)
    marks = {"softbreak": " ", "hardbreak": " "}
    parts = [marks.get(child.type, child.content) for child in token.children or ()]
    return " ".join("".join(parts).split())
