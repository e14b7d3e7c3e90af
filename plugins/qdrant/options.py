"""What the YAML of a Qdrant recall says, checked: which engine, how vectors are kept, and how they are searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError
from orchestrator.stage import Json

from .checks import Check, boolean, checked, choice, fields, number, one_of, text, whole
from .filter import Filter, checked_filter

INDEX_TYPES = ("keyword", "integer", "float", "bool", "datetime", "text", "geo", "uuid")

_HNSW: dict[str, Check] = {
    "m": whole(),
    "ef_construct": whole(4),
    "full_scan_threshold": whole(),
    "max_indexing_threads": whole(),
    "payload_m": whole(),
    "on_disk": boolean,
}
_SCALAR: dict[str, Check] = {"type": choice("int8"), "quantile": number(0.5, 1), "always_ram": boolean}
_PRODUCT: dict[str, Check] = {"compression": choice("x4", "x8", "x16", "x32", "x64"), "always_ram": boolean}
_BINARY: dict[str, Check] = {
    "encoding": choice("one_bit", "one_and_half_bits", "two_bits"),
    "query_encoding": choice("default", "binary", "scalar4bits", "scalar8bits"),
    "always_ram": boolean,
}
_QUANTIZATION: dict[str, Check] = {
    "scalar": lambda path, value: {"type": "int8", **checked(path, value, _SCALAR)},
    "product": lambda path, value: checked(path, value, _PRODUCT, required=("compression",)),
    "binary": lambda path, value: checked(path, value, _BINARY),
}
_SEARCH: dict[str, Check] = {"hnsw_ef": whole(1), "exact": boolean, "indexed_only": boolean}
_QUANTIZED_SEARCH: dict[str, Check] = {"ignore": boolean, "rescore": boolean, "oversampling": number(1)}


@dataclass(frozen=True, slots=True)
class Options:
    """How vectors are kept and searched, whatever the engine.

    Attributes:
        vector_name: the named vector, or "" for a collection's only one.
        filter: JSON in Qdrant's shape, or None.
        payload_indexes: payload field -> type of its index.
        payload_text: whether the text itself is written as payload.
        hnsw: Qdrant's `hnsw_config`; engines that search exactly have no use for it, nor for the next two.
        quantization: Qdrant's `quantization_config`.
        search: Qdrant's search `params`.
    """

    vector_name: str
    filter: Filter | None
    payload_indexes: Mapping[str, Json]
    payload_text: bool
    hnsw: Mapping[str, Json] | None
    quantization: Mapping[str, Json] | None
    search: Mapping[str, Json] | None

    @property
    def payload(self) -> bool:
        """Whether an index in a folder needs payload at all: nothing but a filter reads it there."""
        return self.filter is not None or bool(self.payload_indexes) or self.payload_text

    @property
    def payload_settings(self) -> dict[str, Json]:
        """What shapes an index in a folder beside its vectors; empty for vectors alone."""
        payload: Json = {"text": self.payload_text, "indexes": dict(self.payload_indexes)}
        named: dict[str, Json] = {"vector_name": self.vector_name} if self.vector_name else {}
        return {**named, **({"payload": payload} if self.payload else {})}


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Which server, and how it is talked to. The key shows in no repr.

    Attributes:
        url: without credentials, without a slash at the end.
        api_key: or None.
        prefer_grpc: gRPC for points; the rest stays REST.
        grpc_port: of the same host.
        timeout_s: one attempt at one request, from connecting to the last byte.
    """

    url: str
    api_key: str | None = field(repr=False)
    prefer_grpc: bool
    grpc_port: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ExistingOptions:
    """How a collection that somebody else made holds the corpus's documents.

    Attributes:
        id_field: payload field with the document's id, or None where it is the point's id.
        text_field: payload field with the text that the vector was made of, compared with the corpus's, or None.
        title_field: the same for the title.
        on_unknown: `error` or `skip`: what a hit does that the corpus does not hold.
    """

    id_field: str | None
    text_field: str | None
    title_field: str | None
    on_unknown: str


def checked_options(
    vector_name: str | None,
    filter_: object,
    payload_indexes: object,
    payload_text: bool,
    hnsw: object,
    quantization: object,
    search: object,
) -> Options:
    """The options, each checked.

    Raises:
        ConfigError: one is wrong; names its path.
    """
    return Options(
        vector_name="" if vector_name is None else text("vector_name", vector_name),
        filter=None if filter_ is None else checked_filter("filter", filter_),
        payload_indexes={} if payload_indexes is None else _indexes(payload_indexes),
        payload_text=boolean("payload_text", payload_text),
        hnsw=None if hnsw is None else checked("hnsw", hnsw, _HNSW),
        quantization=None if quantization is None else one_of("quantization", quantization, _QUANTIZATION),
        search=None if search is None else _search(search),
    )


def checked_server(url: str, api_key: str | None, prefer_grpc: bool, grpc_port: int, timeout_s: float) -> ServerOptions:
    """How the server is reached.

    Raises:
        ConfigError: the URL is none, or carries credentials; a number is out of range.
    """
    return ServerOptions(
        url=_url(url),
        api_key=api_key or None,
        prefer_grpc=boolean("prefer_grpc", prefer_grpc),
        grpc_port=whole(1)("grpc_port", grpc_port),
        timeout_s=number(0.001)("timeout_s", timeout_s),
    )


def refuse_mixture(
    engine: str | None, url: str | None, collection: str | None, existing: bool, fields_: ExistingOptions, made: Options
) -> None:
    """Nothing, where the values go together.

    Raises:
        ConfigError: two of them do not, or one is no choice.
    """
    if engine is not None:
        choice("edge", "local")("engine", engine)
    if engine is not None and url is not None:
        raise ConfigError("engine", f"is '{engine}' and url is set; expected one of them, and null for the other")
    if url is None and (collection is not None or boolean("existing", existing)):
        raise ConfigError("existing" if existing else "collection", "needs a server; set url")
    if existing and collection is None:
        raise ConfigError("collection", "missing; an existing collection is called by its name")
    if collection is not None:
        text("collection", collection)
    choice("error", "skip")("on_unknown", fields_.on_unknown)
    for name in ("id_field", "text_field", "title_field"):
        value = getattr(fields_, name)
        if value is not None and not existing:
            raise ConfigError(name, "is for a collection of yours; expected existing: true with it")
    for name in ("hnsw", "quantization", "payload_indexes", "payload_text"):
        if existing and getattr(made, name):
            raise ConfigError(name, "would be written into a collection of yours, which is only read; expected null")


def _url(url: str) -> str:
    example = "expected http[s]://host[:port], for example http://localhost:6333"
    try:
        parts = urlsplit(text("url", url))
        port = parts.port
    except ValueError:
        raise ConfigError("url", f"found {url!r}; {example}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("url", f"carries credentials; {example}, and api_key: ${{oc.env:QDRANT_API_KEY,null}}")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise ConfigError("url", f"found {url!r}; {example}")
    return url.rstrip("/")


def _indexes(value: object) -> dict[str, Json]:
    given = fields("payload_indexes", value, value if isinstance(value, Mapping) else ("field",))
    return {name: choice(*INDEX_TYPES)(f"payload_indexes.{name}", kind) for name, kind in given.items()}


def _search(value: object) -> dict[str, Json]:
    """The flat YAML keys in Qdrant's shape: those about quantization stand in an object of their own there."""
    given = checked("search", value, {**_SEARCH, **_QUANTIZED_SEARCH})
    quantized = {key: given.pop(key) for key in _QUANTIZED_SEARCH if key in given}
    return {**given, **({"quantization": quantized} if quantized else {})}
