"""Traces of real runs at a real collector: what arrives, what never does, and what a collector that hangs costs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import pytest

from tests.deliveries import put
from tests.stage import Stage

PLANTED = "Ludmila Vassileva-Quist"
HEADINGS = "customer_number,invoice_number,issue_date,due_date,currency,amount,note"


@contextmanager
def a_collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """The address of a collector on loopback, and what it was sent: content type and body."""
    taken: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.append((f"{self.path} {self.headers['Content-Type']}", body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_said: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", taken
        server.shutdown()


def test_each_run_and_step_is_a_span_with_ids_and_nobody_in_it(empty_stage: Stage, tmp_path: Path) -> None:
    """A run that fails over a file named after a person: its spans are there before it ends, the person is in none."""
    trace_pb = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    broken = put(tmp_path, f"open_items {PLANTED} 2026-03-02.csv", f"{PLANTED},no,list\n1,2,3\n".encode())
    with a_collector() as (url, taken):
        refused = empty_stage.processes.run("import", str(broken), "--contract", "open_items", KONTOR_TRACES_URL=url)
    assert refused.code == 4, refused
    assert {kind for kind, _ in taken} == {"/v1/traces application/x-protobuf"}
    spans = []
    for _, body in taken:
        assert all(word.encode() not in body for word in PLANTED.split())
        for resource in trace_pb.ExportTraceServiceRequest.FromString(body).resource_spans:
            assert {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"} == {"kontor"}
            spans += [span for scope in resource.scope_spans for span in scope.spans]
    said = [{attribute.key: attribute.value.string_value for attribute in span.attributes} for span in spans]
    kinds = [one["prefect.run.type"] for one in said]
    assert kinds.count("flow") == 1
    assert kinds.count("task") >= 2
    assert len({UUID(one["prefect.run.id"]) for one in said}) == len(spans)  # one span each
    assert len({span.trace_id for span in spans}) == 1
    assert 2 in {span.status.code for span in spans}  # an error is told as one


@pytest.mark.campaign
def test_a_collector_that_hangs_costs_a_run_its_spans_and_a_second(empty_stage: Stage) -> None:
    """It takes the connection and never answers; the run does its work and ends."""
    good = f"{HEADINGS}\nC-1,A1,2026-02-01,2026-03-01,EUR,11.00,x\n".encode()
    put(empty_stage.settings.inbox_path, "open_items 2026-03-09.csv", good)
    run = empty_stage.processes.run
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        done = run("run", "payment_sync", KONTOR_TRACES_URL=f"http://127.0.0.1:{hanging.getsockname()[1]}")
    assert done.code == 0, done
    alone = run("run", "payment_sync")
    assert done.seconds < alone.seconds + 4
