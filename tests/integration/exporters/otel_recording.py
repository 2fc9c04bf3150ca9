"""A database that is instrumented, and what OpenTelemetry's own SDK has recorded of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer
from tests.integration.fastapi.notes import Model

from penstock import Database
from penstock.exporters.opentelemetry import Instrumentation, instrument


class Recording:
    """What arrives at the SDK's readers in memory."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._exporter = InMemorySpanExporter()
        self.meter_provider = MeterProvider([self._reader])
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def of(self, database: Database, pool_name: str | None = None) -> Instrumentation:
        """Instrument a database, so that it is recorded here."""
        return instrument(database, self.meter_provider, self.tracer_provider, pool_name=pool_name)

    @property
    def tracer(self) -> Tracer:
        """For spans of a test's own."""
        return self.tracer_provider.get_tracer("a service")

    def metrics(self) -> dict[str, Metric]:
        """The metrics at this moment, by name."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[Any]:
        """The points of one metric; none where there is no such metric."""
        metric = self.metrics().get(f"db.client.connection.{name}")
        return [] if metric is None else list(metric.data.data_points)

    def value(self, metric: str, **wanted: str) -> Any:
        """The number of a metric's only point, or of the only one with such attributes.

        Args:
            metric: As for :meth:`points`.
            **wanted: Attributes by the last part of their names.
        """
        (point,) = [p for p in self.points(metric) if wanted.items() <= _shortly(p).items()]
        return point.value

    def spans(self, kind: str = "") -> list[ReadableSpan]:
        """The spans that have ended, those whose name begins so."""
        return [s for s in self._exporter.get_finished_spans() if s.name.startswith(kind)]

    def forget_spans(self) -> None:
        """Begin anew."""
        self._exporter.clear()

    def close(self) -> None:
        """End both providers."""
        self.meter_provider.shutdown()
        self.tracer_provider.shutdown()


def said(span: ReadableSpan) -> str:
    """Everything that a span says."""
    text: str = span.to_json()
    return text


def _shortly(point: Any) -> dict[str, Any]:
    return {name.rpartition(".")[2]: value for name, value in point.attributes.items()}


@asynccontextmanager
async def recorded(url: str, **settings: Any) -> AsyncIterator[tuple[Database, Recording]]:
    """Open a database with the notes' tables, and record it from then on."""
    # What the telemetry asks the server in the background would be reported, too.
    settings = {"environment": "testing", "telemetry": False, **settings}
    recording = Recording()
    async with Database.from_url(url, **settings) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Model.metadata.create_all)
        with recording.of(database):
            yield database, recording
    recording.close()
