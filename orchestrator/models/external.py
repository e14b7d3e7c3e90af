"""Which files beside an ONNX graph hold its weights; read without the `onnx` library."""

from __future__ import annotations

import re
from pathlib import Path

# onnx.proto: TensorProto.external_data is a list of StringStringEntryProto {key = 1, value = 2}; here the entry whose
# key is "location", its value told by a length of one byte.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])", re.DOTALL)
# A graph with weights outside is small itself: one larger than this has them inside.
_LARGEST = 64 * 1024 * 1024


def external_files(graph: Path) -> set[str]:
    """Names of the files that the graph keeps weights in, relative to the folder above its own, as in `list_files`.

    Empty for a graph with its weights inside.
    """
    if graph.stat().st_size > _LARGEST:
        return set()
    content = graph.read_bytes()
    found = {content[match.end() : match.end() + match[1][0]] for match in _LOCATION.finditer(content)}
    return {f"{graph.parent.name}/{name.decode('utf-8', 'replace')}" for name in found}
