"""A worker that has forked, as a pool of processes does, and says the number of its child."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from penstock import Database


async def main(url: str, directory: str) -> None:
    """Open the database and fork; both live until they are killed."""
    async with Database.from_url(url, environment="testing", telemetry_dir=Path(directory)):
        if os.fork() == 0:
            be_a_child()
        await asyncio.sleep(60)


def be_a_child() -> NoReturn:
    # Only now has it let go of what is its parent's.
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(60)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
