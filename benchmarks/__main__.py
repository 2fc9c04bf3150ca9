"""``python -m benchmarks [NAME] [--json] [--short]``: run one benchmark, or all of them.

The exit status is 1 where a target was missed.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping

from benchmarks import burst, fairness, http_sessions, overload, pool_cpu
from benchmarks.result import Result
from rich.console import Console

BENCHMARKS: Mapping[str, Callable[[bool], Result]] = {
    "burst": burst.run,
    "fairness": fairness.run,
    "http_sessions": http_sessions.run,
    "overload": overload.run,
    "pool_cpu": pool_cpu.run,
}


def main() -> int:
    """Run what the command line names, print it, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS), help="one; all if left out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--short", action="store_true", help="a short run, to see it work")
    arguments = parser.parse_args()
    names = [arguments.name] if arguments.name else sorted(BENCHMARKS)
    results = {name: BENCHMARKS[name](arguments.short) for name in names}
    if arguments.json:
        every = {name: result.as_json() for name, result in results.items()}
        print(json.dumps(every[arguments.name] if arguments.name else every))  # noqa: T201 - the output
    else:
        for result in results.values():
            Console().print(*result.tables())
    return 0 if all(result.ok for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
