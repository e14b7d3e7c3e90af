"""What stands beside a vector in an index of ours: a document's metadata, id and title, and a hash of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from orchestrator.log import get_logger
from orchestrator.types import Document

from .filter import DOC_ID

log = get_logger()

CONTENT_HASH = "text_hash"
SINCE, UNTIL = "_since", "_until"
"""From which generation on a point is part of a collection on a server, and from which one no more."""

_TITLE, _TEXT = "title", "text"


def content_hash(document: Document, *made_with: str | bool) -> str:
    """Hex blake2b-16 of title, text, metadata, and what else a point is made with: equal hashes mean equal points."""
    parts = [document.title, document.text, document.metadata, *made_with]
    content = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def payload_of(document: Document, with_text: bool) -> dict[str, object]:
    """The payload of one document: its metadata as it is, and our own fields over it."""
    ours: dict[str, object] = {
        DOC_ID: document.doc_id,
        _TITLE: document.title,
        CONTENT_HASH: content_hash(document),
    }
    return {**document.metadata, **ours, **({_TEXT: document.text} if with_text else {})}


def warn_of_hidden(documents: Iterable[Document], told: set[str]) -> None:
    """Log each name of metadata that our own field of that name takes the place of; once a name in `told`."""
    reserved = {DOC_ID, _TITLE, _TEXT, CONTENT_HASH, SINCE, UNTIL}
    for document in documents:
        for name in reserved & document.metadata.keys() - told:
            told.add(name)
            log.warning("qdrant.metadata_hidden", field=name, doc_id=document.doc_id, by="the payload's own field")
