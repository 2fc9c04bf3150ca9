"""The same load from several machines, by Locust."""

from collections.abc import Sequence

from penstock.load.target import Target

_FILE = '''\
"""The load of a run of penstock load, for Locust: pip install locust 'penstock[load]'.

    locust -f FILE --master --headless --users {users} --run-time 60s --expect-workers 2
    locust -f FILE --worker --master-host MASTER      # on each machine that sends

Headers come from the variable {variable}, one a line, of each worker.
{secrets}"""

import os
from random import Random

from locust import FastHttpUser, {wait}, task

from penstock.load import Target, scenario_of
from penstock.watch import headers_from

TARGETS = [
{targets}
]
SCENARIO = scenario_of([Target(**target) for target in TARGETS])
HEADERS = headers_from(os.environ.get({variable!r}, "").splitlines())
RANDOM = Random()


class Client(FastHttpUser):
    host = {url!r}
    connection_timeout = network_timeout = {timeout!r}
    max_redirects = 0
    wait_time = {wait}({waiting!r})

    @task
    def send(self) -> None:
        name, request = SCENARIO.draw(RANDOM)
        headers = {{**HEADERS, "Content-Type": "application/json"}} if request.body else HEADERS
        self.client.request(
            request.method, request.path, name=name, data=request.body, headers=headers,
            allow_redirects=False,
        )
'''
"""The file, but for what is asked."""
_SECRETS = "This file has values of parameters that are called like secrets: keep it as one.\n"


def write_locustfile(
    url: str,
    targets: Sequence[Target],
    *,
    variable: str,
    timeout: float,
    users: int,
    rate: float | None,
) -> str:
    """Return a file for Locust that sends the requests of the same targets.

    Locust's users wait for their answers, so its load is a closed loop, also at a rate.

    Args:
        url: Of the server.
        targets: What to send.
        variable: Of the environment, from which workers take headers.
        timeout: Seconds to connect in, and to wait for data.
        users: How many there are in all.
        rate: Requests per second of all users together; None for as many as they can.
    """
    dumped = (target.model_dump(exclude_defaults=True) for target in targets)
    return _FILE.format(
        url=url,
        targets="\n".join(f"    {each!r}," for each in dumped),
        variable=variable,
        secrets=_SECRETS if any(target.has_secret for target in targets) else "",
        timeout=timeout,
        users=users,
        wait="constant" if rate is None else "constant_throughput",
        waiting=0 if rate is None else rate / users,
    )
