"""The database layer that a FastAPI service needs in production."""
