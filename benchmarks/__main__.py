"""``python -m benchmarks [NAME] [--json] [--short]``: run one benchmark, or all of them."""

import argparse
import json
from typing import Any

from benchmarks import http_sessions
from rich.console import Console
from rich.table import Table

BENCHMARKS = {"http_sessions": http_sessions}


def main() -> None:
    """Run what the command line names and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS), help="one; all if left out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--short", action="store_true", help="one short round, to see it work")
    arguments = parser.parse_args()
    rounds, seconds = (1, 0.5) if arguments.short else (5, 4.0)
    names = [arguments.name] if arguments.name else sorted(BENCHMARKS)
    results = {name: BENCHMARKS[name].run(rounds, seconds) for name in names}
    if arguments.json:
        print(json.dumps(results))  # noqa: T201 - the output
        return
    for name, result in results.items():
        _print(name, result)


def _print(name: str, result: dict[str, Any]) -> None:
    table = Table(title=f"{name}: requests/s, {result['clients']} clients, medians")
    for column in ("scenario", "tutorial", "penstock", "ratio", "range"):
        table.add_column(column)
    for scenario, figures in result["figures"].items():
        speed = figures["requests_per_second"]
        low, high = figures["ratio_range"]
        table.add_row(
            scenario, *(str(speed[p]) for p in speed), f"{figures['ratio']}", f"{low} to {high}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
