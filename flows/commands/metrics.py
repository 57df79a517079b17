"""`kontor metrics`: the figures for a monitoring system, printed once or served to Prometheus."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.reading import on_database
from flows.commands.screen import out, say, settings_in_force

if TYPE_CHECKING:
    from tasks.metrics.exposition import Figure

HOST, PORT = "127.0.0.1", 9464


def metrics(
    serve: Annotated[bool, typer.Option("--serve", help="Serve them over HTTP on 127.0.0.1 until stopped.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to serve on.")] = PORT,
) -> None:
    """Print Kontor's figures in Prometheus's format, or serve them; each answer is asked of the database anew."""
    from tasks.metrics.exposition import as_text, fetch_figures, registry_of

    if not serve:
        out().file.write(as_text(on_database(fetch_figures)))
        return
    from prometheus_client import start_http_server

    server, thread = start_http_server(port, addr=HOST, registry=registry_of(_figures))
    say(f"http://{HOST}:{port}/metrics")
    try:
        threading.Event().wait()
    finally:
        server.shutdown()
        thread.join()


def _figures() -> list[Figure] | None:
    """The figures, or None where the database is away: a scrape must not fail, it must say so."""
    from tasks.errors import KontorError
    from tasks.metrics.exposition import fetch_figures
    from tasks.stack import connected

    try:
        with connected(settings_in_force()) as connection:
            return fetch_figures(connection)
    except KontorError:
        return None
