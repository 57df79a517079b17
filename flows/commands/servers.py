"""`kontor down` and `db`: the servers and the schema under everything else."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from flows.commands.screen import out, say, settings_in_force

db = typer.Typer(no_args_is_help=True, help="The database: bring its schema up to date, print its URL, open a shell.")


class Role(StrEnum):
    """What a connection works as."""

    finance = "finance"
    flows = "flows"
    owner = "owner"
    retention = "retention"


AsRole = Annotated[Role, typer.Option("--role", help="finance reads reports only; owner may change anything.")]


def down() -> None:
    """Stop everything that `kontor up` or another command started, also what a crash left behind. Data stay."""
    from tasks.stack import take_down
    from tasks.standing import stop_supervisor

    settings = settings_in_force()
    was_up = stop_supervisor(settings.home)
    stopped = take_down(settings)
    console = out()
    if was_up:
        console.print("Worker and watcher  stopped")
    console.print(f"Prefect's server    {'stopped' if stopped.prefect else 'was not running'}")
    if settings.database_url is None:
        console.print(f"Embedded database   {'stopped' if stopped.postgres else 'was not running'}")
    else:
        console.print("Database            is your own (KONTOR_DATABASE_URL); it is left alone")


@db.command("upgrade")
def upgrade() -> None:
    """Bring the schema to this version of Kontor. The one command that migrates a database of your own."""
    from tasks.database import prepare

    settings = settings_in_force()
    prepare(settings, say)
    out().print("The database schema is up to date.")


@db.command("url")
def url(
    role: AsRole = Role.finance,
    show_password: Annotated[bool, typer.Option(help="Print the password too, where there is one.")] = False,
) -> None:
    """Print the URL under which psql or a BI tool reaches the database; it must be running."""
    from tasks.database import database_url

    found = database_url(settings_in_force(), f"kontor_{role}")
    out().print(_plain_url(found.render_as_string(hide_password=not show_password)))


@db.command("shell")
def shell(role: AsRole = Role.flows) -> None:
    """Open psql on the database, working as a role that cannot change the schema."""
    from sqlalchemy import make_url

    from tasks.database import database_url
    from tasks.stack import ensure_database

    settings = settings_in_force()
    ensure_database(settings, say)
    found = make_url(database_url(settings, f"kontor_{role}"))
    program = _psql(found.query.get("host"), str(settings.home))
    environment = {**os.environ, "PGOPTIONS": f"-c role=kontor_{role} -c timezone=UTC"}
    if found.password:
        # Not on the command line, where every account of the machine could read it.
        environment["PGPASSWORD"] = str(found.password)
        found = found.set(password=None)
    os.execve(program, [program, _plain_url(found.render_as_string(hide_password=False))], environment)


def _psql(_socket: object, home: str) -> str:
    """The path of a psql: the embedded server's own where that runs, else the one that is installed."""
    import shutil
    from pathlib import Path

    from tasks.errors import DependencyDown
    from tasks.local_stack import find_postgres

    server = find_postgres(Path(home))
    own = server.programs_dir / "psql" if server is not None else None
    found = str(own) if own is not None and own.is_file() else shutil.which("psql")
    if found is None:
        raise DependencyDown(
            "There is no psql: neither with the embedded server nor on the PATH.",
            hint="Install PostgreSQL's client programs, or connect another client to what `kontor db url` prints.",
        )
    return found


def _plain_url(url: str) -> str:
    """The URL as PostgreSQL's own programs take it, without SQLAlchemy's driver."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)
