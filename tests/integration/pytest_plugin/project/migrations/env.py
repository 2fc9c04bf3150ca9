from tests.integration.pytest_plugin.project.service import Base

from penstock.migrations import run

run(Base.metadata)
