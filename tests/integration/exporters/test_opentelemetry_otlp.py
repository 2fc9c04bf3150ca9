"""A service, and what reaches a receiver of OTLP over HTTP."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from sqlalchemy import text
from tests.eventually import eventually
from tests.servers.otlp import OtlpReceiver, otlp_receiver
from tests.servers.process import free_port
from tests.servers.web import client_of

from penstock import Database
from penstock.exporters.opentelemetry import instrument
from penstock.fastapi import Reader, install

WORKER = Resource.create({"service.name": "notes", "service.instance.id": "worker-1"})


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    """Where the exporters send to."""
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture
def meters(receiver: OtlpReceiver) -> Iterator[MeterProvider]:
    """A provider as in production, but that it exports when it is reported to."""
    exporter = OTLPMetricExporter(f"{receiver.url}/v1/metrics")
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)], WORKER)
    yield provider
    provider.shutdown()


@pytest.fixture
def tracers(receiver: OtlpReceiver) -> Iterator[TracerProvider]:
    """As above, with compression."""
    provider = TracerProvider(resource=WORKER)
    exporter = OTLPSpanExporter(f"{receiver.url}/v1/traces", compression=Compression.Gzip)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    yield provider
    provider.shutdown()


async def test_metrics_and_spans_of_a_service_arrive(
    database_url: str, receiver: OtlpReceiver, meters: MeterProvider, tracers: TracerProvider
) -> None:
    database = Database.from_url(database_url, telemetry=False, pool_size=3, max_overflow=1)
    app = FastAPI()
    install(app, database)

    @app.get("/three")
    async def three(reader: Reader) -> None:
        for _ in range(3):
            await reader.scalar(text("SELECT 1"))

    async with client_of(app) as client:
        with (
            instrument(database, meters, tracers, pool_name="notes"),
            tracers.get_tracer("a service").start_as_current_span("outside"),
        ):
            assert (await client.get("/three")).status_code == 200
            assert await asyncio.to_thread(meters.force_flush)
    assert await asyncio.to_thread(tracers.force_flush)

    assert number(receiver.metrics["db.client.connection.max"]) == 4
    (used,) = receiver.metrics["db.client.connection.use_time"].histogram.data_points
    assert used.count == 3
    assert [(a.key, a.value.string_value) for a in used.attributes] == [
        ("db.client.connection.pool.name", "notes")
    ]
    selects = [span for span in receiver.spans if span.name == "SELECT"]
    assert len(selects) == 3
    for span in selects:
        attributes = {a.key: a.value.string_value for a in span.attributes}
        assert attributes["db.query.text"] == "SELECT ?"
        assert attributes["db.system.name"] == "postgresql"


def number(metric: Metric) -> int:
    (point,) = metric.sum.data_points
    value: int = point.as_int
    return value


async def test_each_worker_of_the_documented_service_exports_for_itself(
    database_url: str, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    page = Path(__file__).parents[3] / "docs/opentelemetry.md"
    example = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[0]
    (tmp_path / "service.py").write_text(example)

    with workers_of(tmp_path, database_url, receiver) as process:
        await eventually(lambda: len(instances(receiver.resource_metrics)) == 2, 60)
        await eventually(lambda: bool(instances(receiver.resource_spans)), 60)
        assert process.poll() is None

    assert receiver.metrics["db.client.connection.use_time"].histogram.data_points
    assert "" not in instances(receiver.resource_metrics)


@contextmanager
def workers_of(
    folder: Path, database_url: str, receiver: OtlpReceiver
) -> Iterator[subprocess.Popen[bytes]]:
    """Run two workers of the service in a folder."""
    command = [sys.executable, "-m", "uvicorn", "service:app", "--app-dir", str(folder)]
    variables = {
        "DATABASE_URL": database_url,
        "DATABASE_ENVIRONMENT": "testing",
        "DATABASE_TELEMETRY_DIR": str(folder),
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "--workers", "2", "--port", str(free_port())],
            env={**os.environ, **variables},
            stderr=log,
            stdout=log,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def instances(sent: Iterable[ResourceMetrics | ResourceSpans]) -> set[str]:
    """The workers that have sent something."""
    return {
        attribute.value.string_value
        for each in list(sent)
        for attribute in each.resource.attributes
        if attribute.key == "service.instance.id"
    }
