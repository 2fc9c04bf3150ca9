"""What a route answers with that needs no response model."""

from fastapi import Response


class JSONBytes(Response):
    """A response of JSON that is bytes already, as ``reader.json()`` returns it.

    FastAPI sends a response that a route returns as it is; ``response_model=`` documents it.
    """

    media_type = "application/json"
