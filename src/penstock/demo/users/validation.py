"""The answer to a request that is malformed, without repeating what was sent."""

from http import HTTPStatus

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

__all__ = ["refuse"]


async def refuse(_: Request, error: Exception) -> JSONResponse:
    """Answer 422 with each mistake's place and reason.

    FastAPI's own answer quotes the input, which would send a password back, into whatever log
    keeps responses, and it fails on text that is no valid Unicode.

    Args:
        error: The ``RequestValidationError``.
    """
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    mistakes = error.errors() if isinstance(error, RequestValidationError) else []
    return JSONResponse(
        {
            "title": status.phrase,
            "status": status.value,
            "code": "invalid_request",
            "detail": "The request is malformed.",
            "errors": [
                {"where": list(mistake["loc"]), "why": mistake["msg"]} for mistake in mistakes
            ],
        },
        status_code=status.value,
        media_type="application/problem+json",
    )
