"""How long the application took, in a response header."""

import time

from starlette.types import Message, Scope

__all__ = ["ProcessTime"]


class ProcessTime:
    """Adds ``X-Process-Time``: seconds from the request's arrival to the response's start."""

    def __call__(self, scope: Scope, message: Message, arrived: float) -> None:  # noqa: ARG002 - as every observer
        """Look at the start of a response.

        Args:
            scope: Of the request.
            message: The response's start.
            arrived: When the request did, by ``time.perf_counter``.
        """
        seconds = b"%.6f" % (time.perf_counter() - arrived)
        # ASGI has them as any iterable.
        message["headers"] = [*message.get("headers", ()), (b"x-process-time", seconds)]
