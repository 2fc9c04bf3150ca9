"""``penstock load``."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from math import ceil
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer

from penstock.base_error import PenstockError, SettingsError
from penstock.cli.doctor import HEADERS
from penstock.cli.extras import needs_extra

if TYPE_CHECKING:
    from penstock.load import LoadReport, LoadResult, Scenario, Target, Threshold

_T = TypeVar("_T")

FAILED = 3
"""Exit status where a --fail-if is true or nothing succeeded."""
_REFUSED = 2
"""Exit status where an option is wrong; typer's own."""
_CONCURRENCY = 10
_DURATION = 10.0
_OTHER_FILES = 24


def _between(low: float, high: float, unit: str = "NUMBER") -> dict[str, Any]:
    """Return what makes an option refuse all but a range, nan too, and name it."""

    def number(text: str | float) -> float:
        with suppress(ValueError):
            if low <= (value := float(text)) <= high:
                return value
        raise typer.BadParameter(f"{text} was given; {low:g} to {high:,} accepted")

    return {"parser": number, "metavar": f"{unit} [{low:g}<=x<={high}]"}


class ArrivalsOption(StrEnum):
    """How the requests of an open loop are spread."""

    POISSON = "poisson"
    CONSTANT = "constant"


def load(
    url: Annotated[
        str,
        typer.Argument(
            help="The server's, such as http://127.0.0.1:8000. Without a --target, its path is "
            "what is asked for; with one, it is put before each target's path.",
        ),
    ],
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'METHOD /PATH BODY=WEIGHT'",
            help="Send this request, once or several times; JSON body and weight may be left "
            "out. {1..100}, {uuid}, {seq} and {csv:FILE:COLUMN} are filled anew each time.",
            show_default=False,
        ),
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            help="Read the targets from TOML or JSON.",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="Closed loop: so many clients, each sending when it has its answer; 10 without "
            "--rate.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            **_between(0.01, 100_000),
            help="Open loop: so many requests a second, whether others are answered or not.",
            show_default=False,
        ),
    ] = None,
    arrivals: Annotated[
        ArrivalsOption,
        typer.Option(help="How the requests of an open loop are spread."),
    ] = ArrivalsOption.POISSON,
    connections: Annotated[
        int, typer.Option(min=1, max=10_000, help="Most connections of an open loop.")
    ] = 1000,
    duration: Annotated[
        float | None,
        typer.Option(
            **_between(0.1, 86_400, "SECONDS"),
            help="For how long to send; 10 without --requests.",
            show_default=False,
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000_000, help="How many requests to send.", show_default=False
        ),
    ] = None,
    warm_up: Annotated[
        float,
        typer.Option(
            **_between(0, 3600, "SECONDS"),
            help="Send for so long before, without counting it.",
        ),
    ] = 0.0,
    timeout: Annotated[
        float,
        typer.Option(
            **_between(0.001, 3600, "SECONDS"),
            help="Within which a request has to be answered.",
        ),
    ] = 10.0,
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: VALUE'",
            help=f"Send this header, once or several times. {HEADERS} in the environment, with "
            "one header a line, does the same and is seen in no process list.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of every random choice; equal seeds give equal requests.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            writable=True,
            metavar="FILE",
            help="Write the figures as JSON.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            writable=True,
            metavar="FILE",
            help="Write a page with charts.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            help="Compare with the run of this --json file.",
            show_default=False,
        ),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="End with the status 3 if this holds, once or several times: 'p99>50ms', "
            "'success<99.9%', 'rps<500', 'p99>+10%' (against --compare).",
            show_default=False,
        ),
    ] = None,
    locust: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            writable=True,
            metavar="FILE",
            help="Send nothing; write a file with which Locust sends the same from several "
            "machines.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Load an HTTP service, and show its latencies.

    As many requests as ten clients can get answered, each waiting for its answer (closed loop):

        penstock load http://127.0.0.1:8000/users/1

    200 requests a second, whether others are answered or not (open loop). Latency counts from
    the moment at which a request was due, so a pause of the service is seen in full:

        penstock load URL --rate 200 --target 'GET /users/{1..100}=8' --target 'GET /health=2'

    For CI, with a page to look at and a failure if it became slower:

        penstock load URL --html now.html --json now.json --compare old.json --fail-if 'p99>+10%'

    Ctrl-C ends it with the results so far and the status 130. The status is 3 if a --fail-if
    holds or nothing succeeded, 2 if an option is wrong, and 1 if the service does not answer.
    """
    with needs_extra("load"):
        from penstock.load import scenario_of  # noqa: PLC0415 - aiohttp and rich are an extra's
        from penstock.watch import headers_from  # noqa: PLC0415 - so is httpx
    with _refusals():
        _check(
            [("--concurrency", concurrency), ("--rate", rate)] if locust is None else [],
            [("--duration", duration), ("--requests", requests)],
            files={"--json": json, "--html": html, "--locust": locust},
        )
        base_url, targets = _targets(url, target or [], scenario)
        mixture = scenario_of(targets)
        thresholds, before = _expectations(fail_if or [], compare)
        headers = headers_from([*os.environ.get(HEADERS, "").splitlines(), *(header or [])])
        if locust is not None:
            users = concurrency or _CONCURRENCY
            _write_locustfile(locust, base_url, targets, timeout=timeout, users=users, rate=rate)
            return
        sockets = (concurrency or _CONCURRENCY) if rate is None else connections
        _allow_sockets("--concurrency" if rate is None else "--connections", sockets)
    if requests is None:
        duration = duration or _DURATION
    seed = SystemRandom().getrandbits(32) if seed is None else seed
    order = _Order(
        base_url,
        mixture,
        loop={"clients": concurrency or _CONCURRENCY}
        if rate is None
        else {"rate": rate, "arrivals": arrivals.value, "connections": connections},
        length={"requests": requests, "seconds": duration, "warm_up": warm_up},
        timeout=timeout,
        headers=headers,
        seed=seed,
    )
    report, ended_by = order.run()
    _show(report, before)
    if json is not None:
        report.write(json)
    if html is not None:
        _write_page(html, report, before)
    earlier = None if before is None else before.result
    failures = [each.failure(report.result, earlier) for each in thresholds]
    if not report.result.total.successes:
        failures.append("no request succeeded")
    for failure in filter(None, failures):
        typer.echo(f"Failed: {failure}", err=True)
    if ended_by is not None:
        raise typer.Exit(128 + ended_by)
    if any(failures):
        raise typer.Exit(FAILED)


@contextmanager
def _refusals() -> Iterator[None]:
    """End with the status of a wrong option where one is refused in the block."""
    try:
        yield
    except PenstockError as error:
        typer.echo(f"penstock: {error}", err=True)
        raise typer.Exit(_REFUSED) from error


def _check(*pairs: Sequence[tuple[str, float | None]], files: Mapping[str, Path | None]) -> None:
    for pair in pairs:
        if pair and all(value is not None for _, value in pair):
            raise SettingsError(f"{', '.join(name for name, _ in pair)}: give one of the two")
    for option, path in files.items():
        if path is not None and not os.access(path.absolute().parent, os.W_OK | os.X_OK):
            directory = path.absolute().parent
            raise SettingsError(f"{option} {path}: {directory} is no directory to write to")


def _targets(url: str, lines: list[str], scenario: Path | None) -> "tuple[str, list[Target]]":
    """Return what is put before each path, and what to send."""
    from penstock.load import Target, read_targets  # noqa: PLC0415 - aiohttp is an extra's
    from penstock.watch import service_url  # noqa: PLC0415 - httpx, too

    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
    except ValueError:
        # Neither it nor the error is shown: both can have a password.
        raise SettingsError("What is given is no URL; http://HOST:PORT/PATH accepted") from None
    origin = str(service_url(f"{parts.scheme}://{parts.netloc}")).rstrip("/")
    targets = [*map(Target.parse, lines), *(read_targets(scenario) if scenario else ())]
    if parts.fragment or (targets and parts.query):
        raise SettingsError("the URL: a path in front of the targets' accepted, nothing after it")
    if targets:
        return origin + parts.path.rstrip("/"), targets
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return origin, [Target(request=f"GET {path}")]


def _expectations(
    conditions: list[str], compare: Path | None
) -> "tuple[list[Threshold], LoadReport | None]":
    from penstock.load import LoadReport, Threshold  # noqa: PLC0415 - aiohttp is an extra's

    thresholds = [Threshold.parse(text) for text in conditions]
    before = None if compare is None else LoadReport.read(compare)
    if before is None:
        for each in thresholds:
            if each.is_change:
                raise SettingsError(f"--fail-if {each.text!r}: --compare says of what")
    return thresholds, before


def _allow_sockets(option: str, count: int) -> None:
    """Raise the process's limit of open files where that is needed and allowed."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise SettingsError(
            f"{option} {count}: at most {hard - _OTHER_FILES}, because this process may open "
            f"{hard} files; `ulimit -Hn` has the limit"
        )
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass(frozen=True, slots=True)
class _Order:
    """A run that was asked for."""

    base_url: str
    scenario: "Scenario"
    loop: Mapping[str, Any]
    length: Mapping[str, Any]
    timeout: float
    headers: Mapping[str, str]
    seed: int

    def run(self) -> "tuple[LoadReport, int | None]":
        """Send it all, or until a signal comes; return the report, and the signal if one came."""
        from penstock.load import LoadReport  # noqa: PLC0415 - aiohttp is an extra's

        started = datetime.now(UTC).isoformat(timespec="seconds")
        result, ended_by = _run_in_loop(self._send)
        given = {**self.loop, **self.length, "timeout": self.timeout, "seed": self.seed}
        settings = {
            "loop": "open" if "rate" in self.loop else "closed",
            **{name: f"{value}" for name, value in given.items() if value is not None},
            "targets": "; ".join(f"{k.name} ({k.weight:g})" for k in self.scenario.kinds),
        }
        return LoadReport(self.base_url, started, settings, result), ended_by

    async def _send(self) -> "tuple[LoadResult, int | None]":
        from penstock.load import (  # noqa: PLC0415 - aiohttp is an extra's
            check_answers,
            run_closed_loop,
            run_open_loop,
        )

        await check_answers(self.base_url, timeout=self.timeout, headers=self.headers)
        signals, stop = _signals_that_stop()
        with self._progress() as on_progress:
            run: Callable[..., Awaitable[LoadResult]] = (
                run_open_loop if "rate" in self.loop else run_closed_loop
            )
            result = await run(
                self.base_url,
                self.scenario,
                random=Random(self.seed),  # noqa: S311 - load, no secret
                request_timeout=self.timeout,
                headers=self.headers,
                on_progress=on_progress,
                stop=stop,
                **self.loop,
                **self.length,
            )
        return result, next(iter(signals), None)

    @contextmanager
    def _progress(self) -> Iterator[Callable[[int], None]]:
        """Show a bar of the requests, or of the seconds."""
        from penstock.load import progress  # noqa: PLC0415 - rich is an extra's
        from penstock.watch import terminal  # noqa: PLC0415 - and this needs it, too

        if self.length["requests"] is not None:
            with progress(terminal(), "Sending requests", self.length["requests"]) as update:
                yield update
            return
        seconds = ceil(self.length["seconds"] + self.length["warm_up"])
        begun = time.monotonic()
        with progress(terminal(), "Seconds", seconds) as update:
            yield lambda _: update(int(time.monotonic() - begun))
            update(min(ceil(time.monotonic() - begun), seconds))


def _signals_that_stop() -> tuple[list[int], asyncio.Event]:
    """Return the signals that came, and what the first of them sets; the next one interrupts."""
    came: list[int] = []
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        came.append(number)
        stop.set()
        loop.remove_signal_handler(number)

    if sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end, number)
    return came, stop


def _run_in_loop(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    if sys.platform == "win32":
        return asyncio.run(work())
    with needs_extra("load"):
        import uvloop  # noqa: PLC0415 - it comes with an extra
    return uvloop.run(work())


def _show(report: "LoadReport", before: "LoadReport | None") -> None:
    from penstock.load import comparison_table, figures_table, remarks  # noqa: PLC0415 - extra's
    from penstock.watch import terminal  # noqa: PLC0415 - too

    console, result = terminal(), report.result
    title = f"{result.total.requests:,} requests in {result.seconds:.1f} s; latencies in ms"
    console.print(figures_table(result, title))
    for remark in remarks(result):
        console.print(remark)
    if before is not None:
        console.print(comparison_table(before.result, result, f"Before: {before.started}"))


def _write_page(path: Path, report: "LoadReport", before: "LoadReport | None") -> None:
    from penstock.load import write_page  # noqa: PLC0415 - aiohttp is an extra's

    path.write_text(write_page(report, before), encoding="utf-8")


def _write_locustfile(
    path: Path,
    base_url: str,
    targets: "list[Target]",
    *,
    timeout: float,
    users: int,
    rate: float | None,
) -> None:
    from penstock.load import write_locustfile  # noqa: PLC0415 - aiohttp is an extra's

    text = write_locustfile(
        base_url, targets, variable=HEADERS, timeout=timeout, users=users, rate=rate
    )
    path.write_text(text, encoding="utf-8")
    if any(target.has_secret for target in targets):
        typer.echo(f"{path} has values of parameters that are called like secrets.", err=True)
    typer.echo(f"{path} is written; its first lines say how Locust runs it.")
