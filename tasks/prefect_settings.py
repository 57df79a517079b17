"""The settings of Prefect's server and of those who report to it, as environment variables.

The server calls nobody by itself: analytics, promotional content and resource metrics are off. It listens on loopback,
where whoever has an account of the machine may start flows; anywhere else it asks for a password, one for all: Prefect
has no accounts, so who asked for what stands in Kontor's own tables.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
_EVERYWHERE = ("0.0.0.0", "::", "localhost")
_CODE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Listening:
    """Where the server listens, and the ``user:password`` that it asks for, if any; no port: one that is free."""

    host: str = HOST
    port: int | None = None
    login: str | None = field(default=None, repr=False)


def reach(host: str) -> str:
    """The address under which this machine itself reaches a server that listens on ``host``."""
    return HOST if host in _EVERYWHERE else host


def history_kept(days: int) -> dict[str, str]:
    """The options under which the server itself deletes, every hour and in small steps, what is older than ``days``.

    Runs that have ended go with their states, task runs, logs and artifacts; events go after the same time, the
    heartbeats of runs after a week. Kontor's own ledger is another table in another database and is not touched.
    """
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs,orphans",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(days * 86_400),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"P{days}D",
    }


def client_environment(folder: Path, api_url: str, login: str | None) -> dict[str, str]:
    """The variables for a process that runs flows against the server; ``folder`` is where Prefect keeps its own files.

    A flow's heartbeat is sent every 30 seconds, so that a killed run can be told from a long one.
    """
    return {
        **shared_environment(folder),
        "PREFECT_API_URL": api_url,
        "PREFECT_UI_URL": api_url.removesuffix("/api"),
        **({"PREFECT_API_AUTH_STRING": login} if login else {}),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        # Both ends come from one installation: asking for tokens and versions would be a request each.
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    }


def shared_environment(folder: Path) -> dict[str, str]:
    """The variables that server and clients have in common."""
    bypass = [*os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")).split(","), HOST, "localhost"]
    no_proxy = ",".join(dict.fromkeys(part.strip() for part in bypass if part.strip()))
    return {
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": no_proxy,  # a company proxy cannot reach our loopback
        "no_proxy": no_proxy,
    }


def server_environment(folder: Path, listening: Listening, port: int, database_url: str) -> dict[str, str]:
    """Everything that the server's process is started with."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return {
        **inherited,  # the user's own Prefect profile has no say in our server
        **shared_environment(folder),
        "PREFECT__SERVER_FINAL": "1",
        "PYTHONPATH": str(_CODE),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url,
        "PREFECT_SERVER_DATABASE_TIMEOUT": "30",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "15",
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_APPLICATION_NAME": "prefect-server",
        "PREFECT_SERVER_API_HOST": listening.host,
        "PREFECT_SERVER_API_PORT": str(port),
        **({"PREFECT_SERVER_API_AUTH_STRING": listening.login} if listening.login else {}),
        # Only our own pages may call the API from a browser; Prefect's default lets any web page.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{reach(listening.host)}:{port},http://localhost:{port}",
        # A browser elsewhere finds the API where it found the pages.
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api" if listening.host == HOST else "/api",
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "ui"),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    }
