"""The certificates that clients of remote models trust."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


@functools.cache
def trusted() -> ssl.SSLContext:
    """The HTTP library's default, read once a process: a client of its own takes 50 ms to read it anew."""
    import httpx2

    return httpx2.create_ssl_context()
