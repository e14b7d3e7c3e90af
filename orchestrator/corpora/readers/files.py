"""Text and Markdown files: each file is one document, its id the path below the folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from orchestrator.corpora.markdown import FrontMatterError, outline, split_front_matter
from orchestrator.corpora.readers.columns import Columns, as_json
from orchestrator.errors import ConfigError
from orchestrator.lines import BadLineError, BadLines, OnBytes, refuse_other_kinds
from orchestrator.log import get_logger
from orchestrator.types import Document

if TYPE_CHECKING:
    from orchestrator.corpora.locate import SourceFile

log = get_logger()


class FilesReader:
    """Documents of text and Markdown files; implements `Reader`.

    The title of a Markdown file is that of its front matter, or its first heading; the rest of the front matter is
    metadata. A file with nothing in it is left out.

    Args:
        columns: only `metadata` has a meaning: which keys of the front matter are kept.

    Raises:
        ConfigError: a column is named.
    """

    def __init__(self, columns: Columns) -> None:
        for key, name in columns.named:
            if key != "metadata":
                found = f"found '{name}', but text and Markdown files have no columns"
                raise ConfigError(f"corpus.columns.{key}", f"{found}; to read files of rows: corpus.format=csv")
        self._metadata = columns.metadata

    def read(self, file: SourceFile, bad: BadLines, on_bytes: OnBytes) -> Iterator[tuple[int, Document]]:
        """(0, the document), or nothing for an empty file."""
        data = file.path.read_bytes()
        on_bytes(len(data))
        refuse_other_kinds(file.path, data[:8])
        try:
            text = data.decode("utf-8-sig")
            document = self._markdown(file.name, text) if file.is_markdown else Document(file.name, text)
        except UnicodeDecodeError as error:
            found = f"found 0x{data[error.start]:02x}, which is no UTF-8; expected UTF-8 text"
            bad(file.path, data.count(b"\n", 0, error.start) + 1, BadLineError(found))
            return
        except FrontMatterError as error:
            bad(file.path, 1, BadLineError(f"the front matter is no YAML ({error})"))
            return
        if text.strip():
            yield 0, document
        else:
            log.warning("corpus.empty_file", source=str(file.path))

    def _markdown(self, name: str, text: str) -> Document:
        front, body = split_front_matter(text)
        title = front.pop("title", None)
        if title is not None:
            return Document(name, body.strip("\r\n"), str(title), self._kept(front))
        first = next(iter(outline(body).headings), None)
        if first is None:
            return Document(name, body.strip("\r\n"), "", self._kept(front))
        # A heading at the very top is the title and no longer text; one further down stays where it is.
        start = first.end if not body[: first.start].strip() else 0
        return Document(name, body[start:].strip("\r\n"), first.text, self._kept(front))

    def _kept(self, front: Mapping[str, object]) -> dict[str, object]:
        wanted = self._metadata
        return {key: as_json(value) for key, value in front.items() if wanted is None or key in wanted}
