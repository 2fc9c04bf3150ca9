"""What a type checker makes of an engine's pool."""

from pathlib import Path

from mypy import api

CODE = """
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from penstock import Database, PenstockPool

engine = create_async_engine("postgresql+asyncpg://app@db/app", poolclass=PenstockPool)
pool: PenstockPool = PenstockPool.of(engine)
pool.resize(pool_size=40, max_overflow=10)
PenstockPool.of(engine.sync_engine).suspend()

def enlarge(database: Database) -> None:
    PenstockPool.of(database.engine).resize(40)
    PenstockPool.of(database.engine).resize("40")
"""


def test_the_operator_s_calls_are_typed(cache: Path) -> None:
    path = cache / "snippet.py"
    path.write_text(CODE, encoding="utf-8")

    report, error, _ = api.run(
        ["--strict", "--config-file=", "--cache-dir", str(cache), "--no-error-summary", str(path)]
    )

    assert not error
    [line] = report.splitlines()
    assert '"resize" of "PenstockPool" has incompatible type "str"' in line
