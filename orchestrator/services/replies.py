"""What an HTTP answer means for the one who asked: try again, or mend something first."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from orchestrator.errors import ConfigError, MalformedReplyError, PermanentError, RemoteError, TransientError

_TRANSIENT = frozenset({408, 409, 424, 425, 429})
"""Beside 5xx. 424 is what text-embeddings-inference says when its backend failed."""
_NEVER = frozenset({501, 505, 511})
_VARIABLE = "the environment variable that `api_key` names"
_ADVICE: Mapping[int, str] = {
    400: "the service does not accept the request; check the model's name, its arguments and the length of the texts",
    401: f"the key is missing or wrong; put it into {_VARIABLE}",
    402: "nothing is left of the account's credit; top it up or choose another service",
    403: "the key may not use this model or address; check its permissions",
    404: "there is no such address or model; check `base_url`, the path and `name`",
    405: "this address takes no such request; check `base_url` and the path",
    413: "the request is too large; send fewer or shorter texts at once",
    422: "the service does not accept the request; check the number and the length of the texts and the arguments",
    498: f"the key is not valid; put a good one into {_VARIABLE}",
}
_LONGEST_DETAIL = 300


def status_error(
    service: str,
    status: int,
    body: str,
    headers: Mapping[str, str],
    secret: str | None,
    key_variable: str | None = None,
) -> RemoteError:
    """The error that an answer other than 2xx stands for.

    Args:
        service: what was called.
        status: HTTP status.
        body: of the answer; its message is quoted.
        headers: of the answer, names in lower case.
        secret: the key; never quoted, even when the service echoes it.
        key_variable: environment variable that should hold the key, where it is known.
    """
    body = redacted(body, secret)
    said = _message(body)
    found = f"answered {status}" + (f": {said}" if said else "")
    if status < 400:
        target = redacted(headers.get("location", "elsewhere"), secret)
        return PermanentError(service, f"{found} and points to {target}; check `base_url`", status)
    if "insufficient_quota" in body:  # OpenAI says 429 also when the account is empty
        return PermanentError(service, f"{found}. {_capital(_ADVICE[402])}", status)
    if (status in _TRANSIENT or status >= 500) and status not in _NEVER:
        return TransientError(service, found, status, retry_after_s(headers))
    advice = _ADVICE.get(status, "trying again does not help; check `base_url` and the arguments")
    advice = advice.replace(_VARIABLE, _variable(key_variable))
    return PermanentError(service, f"{found}. {_capital(advice)}", status)


def missing_key(service: str, key_variable: str | None) -> ConfigError:
    """The error of a service that wants a key and was given none; `key_variable` as in `status_error`."""
    advice = f"export {key_variable}=..." if key_variable else f"put it into {_VARIABLE}"
    return ConfigError("api_key", f"missing; {service} wants one: {advice}")


def _variable(name: str | None) -> str:
    return f"the environment variable {name}" if name else _VARIABLE


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` (seconds or a date, RFC 9110) asks for, or None."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value) * unit_s
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


def json_reply(service: str, body: str, secret: str | None = None) -> Any:
    """The JSON of a 2xx answer.

    Raises:
        TransientError: it is empty, or JSON that breaks off.
        MalformedReplyError: it is something else, for example the login page of a proxy.
    """
    try:
        return json.loads(body)
    except ValueError as error:
        if not body.strip() or body.lstrip()[0] in "{[":
            raise TransientError(service, f"the reply is empty or broken off ({error})") from error
        quoted = " ".join(redacted(body, secret).split())[:80]
        message = f"the reply is not JSON ({error}): {quoted!r}. Check `base_url` and the path"
        raise MalformedReplyError(service, message) from error


def lacking(service: str, key: str, reply: Any, secret: str | None = None) -> RemoteError:
    """The error that a 2xx reply without what was asked for stands for.

    Args:
        service: what was called.
        key: what the reply should have.
        reply: its JSON. A status in `error.code`, as gateways give it beside a 200, counts as the answer's own.
        secret: the key; never quoted.
    """
    inside, said = error_inside(service, reply, secret), redacted(said_in(reply), secret)
    detail = f"the reply has no `{key}`"
    return inside or MalformedReplyError(
        service, f"{detail}, and says: {said}" if said else f"{detail}; check `base_url`"
    )


def error_inside(service: str, reply: Any, secret: str | None = None) -> RemoteError | None:
    """The error whose status stands in `error.code` of a 2xx reply, as gateways give it; None where none does."""
    code = find(reply, "error.code")
    is_status = isinstance(code, int) and 400 <= code < 600
    return status_error(service, code, json.dumps(reply), {}, secret) if is_status else None


def said_in(reply: Any) -> str:
    """The message that a reply's JSON holds, from the shapes that services use; empty where there is none."""
    for path in ("error.message", "message", "detail", "error", "error.detail"):
        value = find(reply, path)
        if value and not isinstance(value, Mapping):
            return " ".join(str(value).split())[:_LONGEST_DETAIL]
    return ""


def redacted(text: str, secret: str | None) -> str:
    """`text` with the key taken out."""
    return text.replace(secret, "***") if secret else text


def find(reply: Any, path: str) -> Any:
    """The value at a dotted path, for example `meta.billed_units.search_units`; None where there is none."""
    for key in path.split("."):
        reply = reply.get(key) if isinstance(reply, Mapping) else None
    return reply


def count_at(reply: Any, *paths: str) -> float:
    """The first number from 0 that stands at one of the dotted `paths`; 0 where a service counts nothing."""
    for path in paths:
        value = find(reply, path)
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return float(value)
    return 0.0


def _message(body: str) -> str:
    """What the service says; the body's beginning where its shape is none that services use."""
    try:
        reply = json.loads(body)
    except ValueError:
        reply = None
    return said_in(reply) or " ".join(body.split())[:_LONGEST_DETAIL]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
