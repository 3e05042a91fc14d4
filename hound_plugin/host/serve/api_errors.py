"""All errors of the API in OpenAI's form: its clients show ``message``, ``param`` and ``code``."""

from __future__ import annotations

import traceback
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from llamafactory.extras import logging
from starlette.exceptions import HTTPException

from hound_plugin.errors import ContextLengthError, DataError, MediaError, PlaceholderError, SettingsError

logger = logging.get_logger(__name__)
_ABOUT_THE_REQUEST = (MediaError, DataError, SettingsError)
_CODES = {401: "invalid_api_key", 404: "not_found", 413: "request_too_large", 503: "server_overloaded"}


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it (``error``) and as the host writes it (``detail``)."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code or _CODES.get(status)}
    return {"error": error, "detail": message}


def describe(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Status and body for an exception; the client gets only the name of a fault that is not the request's."""
    if isinstance(error, HTTPException):
        return error.status_code, error_body(error.status_code, str(error.detail))
    if isinstance(error, RequestValidationError):
        problems = error.errors()
        field = [str(part) for part in problems[0]["loc"] if part != "body"] if problems else []
        text = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in problems)
        return 400, error_body(400, text, ".".join(field) or None)
    if isinstance(error, _ABOUT_THE_REQUEST):
        code = "context_length_exceeded" if isinstance(error, ContextLengthError) else None
        about_messages = isinstance(error, MediaError | PlaceholderError | ContextLengthError)
        param = error.key if isinstance(error, SettingsError) else "messages" if about_messages else None
        return 400, error_body(400, " ".join(str(error).split()), param, code)
    logger.error("".join(traceback.format_exception(error)))
    return 500, error_body(500, f"The server failed ({type(error).__name__}); its log says why.")


def refusal(error: BaseException) -> JSONResponse:
    """The response for an exception."""
    status, body = describe(error)
    headers = getattr(error, "headers", None)
    return JSONResponse(body, status, headers)


def use_for_all_routes(app: FastAPI) -> None:
    """Errors of every route in this form: a wrong key, an unknown address, the host's own checks."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return refusal(error)

    for kind in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, handle)
