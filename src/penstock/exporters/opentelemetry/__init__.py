"""Metrics of the pool and spans of statements for OpenTelemetry; needs the extra ``otel``."""

try:
    import opentelemetry.metrics
    import opentelemetry.trace  # noqa: F401 - to say below what is missing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "penstock.exporters.opentelemetry needs OpenTelemetry's packages, which are not "
        "installed. Install them with\n  pip install 'penstock[otel]'",
        name=error.name,
    ) from error

from penstock.exporters.opentelemetry.instrument import Instrumentation, instrument

__all__ = ["Instrumentation", "instrument"]
