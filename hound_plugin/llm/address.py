"""Server addresses and request parameters. They are written to files, so they must not contain secrets."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator

_OPEN_QUERY = ("api-version",)
_SEVERAL = ("n", "best_of")
_HEADERS = ("api_key", "api-key", "apikey", "authorization", "headers", "extra_headers", "default_headers")


def check_address(url: str) -> str:
    """The address as it is.

    Raises:
        ValueError: not http or https, or with a user, a password or a query; the message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        good = good and all(name in _OPEN_QUERY for name, _ in parse_qsl(parts.query, keep_blank_values=True))
        good = good and not parts.fragment and (parts.port is None or parts.port > 0)
    except ValueError:  # a port of letters
        good = False
    if not good:
        raise ValueError(
            "expected http(s)://host/... without a user, a password or a query, because addresses are written to "
            "files. The key is read from the environment variable that api_key_env names."
        )
    return url


def check_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters as they are.

    Raises:
        ValueError: one of them is an API key or a header (the message does not repeat its value), or asks for several
            replies or a stream, of which one reply would be read.
    """
    for name, value in parameters.items():
        if (name in _SEVERAL and value not in (None, 1)) or (name == "stream" and value):
            raise ValueError(
                f"{name} is not allowed here: each request gets one whole reply. Set `judge.k` or `sample.n` for "
                "several judgements or answers."
            )
        if str(name).lower() in _HEADERS:
            raise ValueError(
                f"{name} is not allowed here, because parameters are written to files. The key is read from the "
                "environment variable that api_key_env names."
            )
    return parameters


Address = Annotated[str, AfterValidator(check_address)]
Parameters = Annotated[dict[str, Any], AfterValidator(check_parameters)]
