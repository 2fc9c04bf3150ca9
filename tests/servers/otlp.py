"""A receiver of OTLP over HTTP, which keeps what it is sent, decoded."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

_PROTOBUF = "application/x-protobuf"


class OtlpReceiver:
    """What has arrived.

    Args:
        url: Where exporters send it to, without ``/v1/metrics``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.resource_metrics: list[ResourceMetrics] = []
        self.resource_spans: list[ResourceSpans] = []

    def take(self, path: str, body: bytes) -> bytes:
        """Keep a request, and return the answer to it.

        Raises:
            KeyError: There is nothing under the path.
            google.protobuf.message.DecodeError: The body is no such request.
        """
        if path == "/v1/metrics":
            self.resource_metrics += ExportMetricsServiceRequest.FromString(body).resource_metrics
            answer: bytes = ExportMetricsServiceResponse().SerializeToString()
        elif path == "/v1/traces":
            self.resource_spans += ExportTraceServiceRequest.FromString(body).resource_spans
            answer = ExportTraceServiceResponse().SerializeToString()
        else:
            raise KeyError(path)
        return answer

    @property
    def metrics(self) -> dict[str, Metric]:
        """The newest of each name."""
        return {
            metric.name: metric
            for resource in self.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    @property
    def spans(self) -> list[Span]:
        """All of them, in the order of their arrival."""
        return [
            span
            for resource in self.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """Receive on a free port of loopback, for the length of a block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            answer = receiver.take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Type", _PROTOBUF)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Say nothing on standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = OtlpReceiver(f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            serving.join()
