"""``python -m benchmarks [NAME] [--json] [--short] [--results DIRECTORY]``: run one or all.

The exit status is 1 where a target was missed.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import (
    batching,
    burst,
    collector,
    fairness,
    http_read,
    http_write,
    httparena,
    json_list,
    lane_cpu,
    overload,
    planner_accuracy,
    pool_cpu,
    roundtrips,
    rtt,
    scaling,
    telemetry_cost,
    waterfall,
)
from benchmarks.machine import machine
from benchmarks.report import write_report
from benchmarks.result import Result
from rich.console import Console

BENCHMARKS: Mapping[str, Callable[[bool], Result]] = {
    "batching": batching.run,
    "burst": burst.run,
    "fairness": fairness.run,
    "gc": collector.run,
    "http_read": http_read.run,
    "http_write": http_write.run,
    "httparena": httparena.run,
    "json_list": json_list.run,
    "lane_cpu": lane_cpu.run,
    "overload": overload.run,
    "planner_accuracy": planner_accuracy.run,
    "pool_cpu": pool_cpu.run,
    "roundtrips": roundtrips.run,
    "rtt": rtt.run,
    "telemetry_cost": telemetry_cost.run,
    "waterfall": waterfall.run,
    "workers": scaling.run,
}


def main() -> int:
    """Run what the command line names, print it, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS), help="one; all if left out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--short", action="store_true", help="a short run, to see it work")
    parser.add_argument("--results", type=Path, help="a directory for results.json, report.html")
    arguments = parser.parse_args()
    names = [arguments.name] if arguments.name else sorted(BENCHMARKS)
    results = {name: BENCHMARKS[name](arguments.short) for name in names}
    if arguments.json:
        every = {name: result.as_json() for name, result in results.items()}
        print(json.dumps(every[arguments.name] if arguments.name else every))  # noqa: T201 - the output
    else:
        for result in results.values():
            Console().print(*result.tables())
    if arguments.results:
        written = write_report(results, machine(), arguments.results)
        Console(stderr=True).print("written:", *map(str, written))
    return 0 if all(result.ok for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
