from penstock.migrations import run

from app.models import Base

run(Base.metadata)
