"""The users service: a small FastAPI application over one table."""

from penstock.demo.users.application import create_app, upgrade
from penstock.demo.users.model import Base, User

__all__ = ["Base", "User", "create_app", "upgrade"]
