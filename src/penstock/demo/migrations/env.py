"""Alembic's entry."""

from penstock.demo.users.model import Base
from penstock.migrations import run

run(Base.metadata)
