"""A worker process: reads under load until it is killed, and says how often it has."""

import asyncio
import sys
from pathlib import Path

from sqlalchemy import text

from penstock import Database, query

TICK_INTERVAL = query(text("SELECT 1 AS one"))


async def main(url: str, directory: str, reads: int) -> None:
    """Read so many times, say so, and go on reading where the number is 0."""
    async with Database.from_url(
        url, environment="testing", telemetry_dir=Path(directory)
    ) as database:
        done = 0
        while not reads or done < reads:
            await database.reader.one(TICK_INTERVAL)
            done += 1
            if not reads and done % 50 == 0:
                sys.stdout.write(f"{done}\n")
                sys.stdout.flush()
        sys.stdout.write(f"{done}\n")
        sys.stdout.flush()
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
