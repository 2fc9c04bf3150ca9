"""A database's capacity plan: what its settings and its telemetry tell of it."""

from collections.abc import Mapping
from math import isfinite

from penstock.base_error import SettingsError
from penstock.planner import Plan, PlanInputs, fitting_p99, overridden, plan, read_inputs
from penstock.settings import DatabaseSettings
from penstock.telemetry import PlannedLoad, Reading

_SECONDS = 60
"""The last seconds from which the rate is taken."""


def planned_load(settings: DatabaseSettings) -> PlannedLoad:
    """Return what the plan that the settings name expects of one machine.

    Raises:
        SettingsError: The file is no plan; the message says why.
    """
    assert settings.plan is not None  # noqa: S101 - as Database has looked
    try:
        made = plan(read_inputs(settings.plan))
    except SettingsError as error:
        raise SettingsError(f"plan='{settings.plan}': {error}") from None
    inputs, queue = made.inputs, made.predicted.queue
    return PlannedLoad(
        checkouts=made.rate * inputs.connections_per_request / inputs.instances,
        hold=queue.service,
        utilisation=queue.utilisation,
        workers=inputs.workers,
        instances=inputs.instances,
        declared_instances=settings.instances,
    )


def plan_of(settings: DatabaseSettings, reading: Reading, inputs: Mapping[str, object]) -> Plan:
    """Return the plan of a service; :meth:`Database.plan` says more.

    Args:
        settings: Of the database.
        reading: Of its telemetry: each checkout counts as a request, and the time for which it
            held its connection as one query.
        inputs: By the names of :class:`PlanInputs`, which have priority over what is known.
    """
    return plan(overridden(_known(settings, reading), inputs))


def _known(settings: DatabaseSettings, reading: Reading) -> dict[str, object]:
    known = PlanInputs.of_settings(settings)
    if isfinite(limit := reading.now.server_limit) and limit >= 1:
        known["max_connections"] = int(limit)
    hold = reading.histogram("hold")
    recent = [sample.checkouts for w in reading.workers for sample in reading.recent(w, _SECONDS)]
    if not (hold.count and hold.seconds > 0 and sum(recent)):
        return known
    mean = hold.seconds / hold.count
    seconds = min(_SECONDS, max(len(worker.history) for worker in reading.workers))
    return known | {
        "rate": sum(recent) / seconds * settings.instances,
        "query_time": mean,
        "query_p99": fitting_p99(mean, hold.quantile(0.99)),
        "sample": hold.count,
    }
