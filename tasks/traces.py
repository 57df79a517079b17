"""Traces by OpenTelemetry, by one setting: Prefect's engine makes a span of each run and step where somebody collects.

Prefect brings OpenTelemetry's interface alone, which collects nothing. ``KONTOR_TRACES_URL`` names a collector that
speaks OTLP over HTTP; sending there takes the packages of the extra ``traces``. Spans carry names of flows and steps,
ids, states and times, as Prefect's own records do, and no customer. They leave every few seconds and at the process's
end, by a thread beside the work; a collector that does not answer costs spans and a second or two at the end.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from configs.settings import Settings
from tasks.errors import UsageError

NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
_INTERFACE = ("opentelemetry.trace",)
_SENDING = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk.resources",
    "opentelemetry.sdk.trace",
    "opentelemetry.sdk.trace.export",
)


_SEND_SECONDS = 1.0  # for a batch, tries included
_BATCH = 512  # spans; twice as many may wait, so that a collector that is away delays the end by three batches at most


def missing_packages() -> list[str]:
    """Which of the packages that sending spans takes are not installed."""
    return [name for name in NEEDED if not _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def begin_tracing(settings: Settings) -> bool:
    """Let this process's spans go to the collector; False where none is named. Call before the first run begins.

    Raises:
        UsageError: a collector is named, but the packages that send to it are not installed.
    """
    if settings.traces_url is None:
        return False
    missing = missing_packages()
    if missing:
        raise UsageError(
            f"KONTOR_TRACES_URL is set, but {' and '.join(missing)} are not installed: nothing would be traced.",
            hint="Install Kontor with its extra `traces`, or unset KONTOR_TRACES_URL.",
        )
    trace, exporter, resources, sdk, export = map(import_module, (*_INTERFACE, *_SENDING))
    provider = sdk.TracerProvider(resource=resources.Resource.create({"service.name": "kontor"}))
    url = f"{settings.traces_url.rstrip('/')}/v1/traces"
    sender = exporter.OTLPSpanExporter(endpoint=url, timeout=_SEND_SECONDS)
    # The provider sends what is left when the process ends.
    provider.add_span_processor(
        export.BatchSpanProcessor(sender, max_queue_size=2 * _BATCH, max_export_batch_size=_BATCH)
    )
    trace.set_tracer_provider(provider)
    return True
