"""What stands in a page of HTML, read as a browser would."""

from __future__ import annotations

from html.parser import HTMLParser

_VOID = frozenset({"meta", "br"})


class Reader(HTMLParser):
    """Tags, texts, and what the page would fetch. A tag that closes nothing fails; `open` are those never closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = [str(value) for name, value in attributes if name in ("src", "href", "srcset", "xlink:href")]
        self.fetched += [address for address in named if not address.startswith("#")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else: {self.open[-5:]}"

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())
