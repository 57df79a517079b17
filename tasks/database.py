"""Where the database is, who connects to it as what, and how its schema is brought up to date.

The embedded server and any PostgreSQL named by ``KONTOR_DATABASE_URL`` look the same from here on: callers
ask for an engine in a role and get one.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from configs.settings import PROJECT_ROOT, Settings
from data_contracts.schemas import SCHEMAS
from tasks.errors import DependencyDown, Refused
from tasks.local_stack import LocalPostgres, find_postgres, is_sealed, start_postgres

DATABASE = "kontor"
PREFECT_DATABASE = "prefect"
OLDEST_SERVER = 170_000
MIGRATIONS = PROJECT_ROOT / "data_contracts" / "migrations"
ROLES_SCRIPT = PROJECT_ROOT / "data_contracts" / "roles.sql"
VIEWS = PROJECT_ROOT / "data_contracts" / "views"

OWNER = "kontor_owner"
FLOWS = "kontor_flows"
RETENTION = "kontor_retention"
FINANCE = "kontor_finance"
_ADMIN = "kontor_admin"
_PREFECT = "kontor_prefect"

_ASYNCPG_PARAMETERS = ("host", "port", "passfile", "target_session_attrs")
_TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")

Progress = Callable[[str], None]


def _silent(_: str) -> None:
    return None


def _driver_url(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg")


def _socket_url(server: LocalPostgres, role: str, database: str) -> URL:
    return URL.create(
        "postgresql+psycopg",
        username=role,
        database=database,
        query={"host": str(server.socket_dir), "port": str(server.port)},
    )


def _running_server(settings: Settings) -> LocalPostgres:
    server = find_postgres(settings.home, ask=False)  # pools ask by themselves before a connection is used
    if server is None:
        raise DependencyDown(
            f"The embedded database under {settings.home} is not running.",
            hint="Start it with `kontor up`; `kontor demo` and `kontor import` start it by themselves.",
        )
    return server


def database_url(settings: Settings, role: str) -> URL:
    """The URL under which ``role`` reaches Kontor's database.

    Raises:
        DependencyDown: the embedded server is not running.
    """
    if settings.database_url is not None:
        return _driver_url(make_url(settings.database_url.get_secret_value()))
    return _socket_url(_running_server(settings), role, DATABASE)


def prefect_url(settings: Settings) -> URL:
    """The URL of Prefect's own database, which stands on the same server, for the driver that Kontor itself uses."""
    if settings.database_url is not None:
        return _driver_url(make_url(settings.database_url.get_secret_value())).set(database=PREFECT_DATABASE)
    return _socket_url(_running_server(settings), _PREFECT, PREFECT_DATABASE)


def prefect_database_url(settings: Settings) -> str:
    """The same for Prefect's asynchronous driver, which calls ``sslmode`` otherwise and knows few parameters else.

    Certificates are not part of it: see :func:`prefect_certificates`.
    """
    url = prefect_url(settings).set(drivername="postgresql+asyncpg")
    kept = {name: value for name, value in url.query.items() if name in _ASYNCPG_PARAMETERS}
    if "sslmode" in url.query:
        kept["ssl"] = url.query["sslmode"]
    return url.set(query=kept).render_as_string(hide_password=False)


def prefect_certificates(settings: Settings) -> dict[str, str]:
    """The certificate files that ``KONTOR_DATABASE_URL`` names, as variables that Prefect's driver looks at."""
    return {
        f"PG{name.upper()}": str(value) for name, value in prefect_url(settings).query.items() if name in _TLS_FILES
    }


def engine_for(settings: Settings, role: str = FLOWS, *, purpose: str = "kontor") -> Engine:
    """An engine whose every connection works as ``role``; ``purpose`` is shown in pg_stat_activity.

    With ``KONTOR_DATABASE_URL`` the login may be another user who is a member of the role.
    """
    return _engine(database_url(settings, role), role, purpose)


@functools.lru_cache(maxsize=32)
def _engine(url: URL, role: str, purpose: str) -> Engine:
    options = f"-c timezone=UTC -c role={role} -c application_name={purpose.replace(' ', '_')}"
    return create_engine(url, pool_pre_ping=True, connect_args={"options": options, "connect_timeout": 10})


def prepare(settings: Settings, progress: Progress = _silent) -> None:
    """Bring everything to the state that flows expect: server up, roles, databases, schema, views.

    Harmless when all is there already. Two processes at once are serialised by an advisory lock.

    Raises:
        DependencyDown: the server cannot be reached.
        Refused: the server is older than PostgreSQL 17, or the database was restored and not released yet.
    """
    if settings.database_url is None:
        prepare_server(settings, progress)
    upgrade(settings, progress)


def prepare_server(settings: Settings, progress: Progress = _silent) -> None:
    """Start the embedded server and see to its roles and databases; the schema is :func:`upgrade`'s.

    Raises:
        DependencyDown: it does not start.
        Refused: the database was restored and not released yet.
    """
    if is_sealed(settings.home):
        raise Refused(
            "The database was restored, and what was erased since that backup has not been erased in it again;"
            " nobody but the restore may read it.",
            hint="Finish with `kontor backup release`; it can be run any number of times.",
        )
    server = start_postgres(settings.home, timeout_seconds=settings.start_timeout_seconds, progress=progress)
    _bootstrap(_socket_url(server, _ADMIN, "postgres"))


def _bootstrap(admin_url: URL) -> None:
    """Create roles and databases on a server that is ours alone."""
    engine = create_engine(admin_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("select pg_advisory_lock(hashtext('kontor bootstrap'))"))
        have = set(connection.scalars(text("select datname from pg_database")))
        if {DATABASE, PREFECT_DATABASE} <= have:
            return
        _run_script(connection, ROLES_SCRIPT)
        connection.exec_driver_sql("revoke all on database postgres from public")
        _forbid_large_objects(admin_url.set(database="template1"))
        for name, owner in ((DATABASE, OWNER), (PREFECT_DATABASE, _PREFECT)):
            if name not in have:
                connection.exec_driver_sql(f'create database "{name}" owner "{owner}"')
                connection.exec_driver_sql(f'revoke all on database "{name}" from public')


def _forbid_large_objects(template: URL) -> None:
    """Take from everybody what PostgreSQL gives to everybody: to store large objects, reading roles included.

    Done in the template, before databases are made of it: the functions are the server's, not a schema's.
    """
    engine = create_engine(template, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for function in ("lo_creat(integer)", "lo_create(oid)", "lo_from_bytea(oid, bytea)"):
            connection.exec_driver_sql(f"revoke execute on function pg_catalog.{function} from public")


def _run_script(connection: Connection, script: Path) -> None:
    """Run a file of several statements as it stands: no parameters, so that % and : mean themselves."""
    driver = connection.connection.driver_connection
    if driver is not None:
        driver.execute(script.read_text("utf-8"))


def newest_migration() -> str:
    """The revision that this version of Kontor brings a schema to; the files of migrations are numbered by it."""
    return _migrations()[-1]


def _migrations() -> list[str]:
    return sorted(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def standing_migration(connection: Connection) -> str | None:
    """The revision at which the connected database stands; None where it has no schema of ours yet."""
    if connection.scalar(text("select to_regclass('ops.alembic_version')")) is None:
        return None
    standing: str | None = connection.scalar(text("select version_num from ops.alembic_version"))
    return standing


def _migrate(connection: Connection) -> None:
    from alembic import command  # half a second that no other command should wait for
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def upgrade(settings: Settings, progress: Progress = _silent) -> None:
    """Apply the migrations that are missing, then the views, in one transaction as the owner.

    Nothing is written when the schema stands at the newest migration and the views are the ones in this version.

    Raises:
        Refused: a newer version of Kontor has migrated it, or somebody's own views are in the way.
    """
    from tasks.rules import seed_rules  # it describes all tables, which no other command should wait for

    with _connect(engine_for(settings, OWNER, purpose="kontor upgrade")) as connection, connection.begin():
        _check_server(connection)
        _check_not_newer(connection)
        if _is_current(connection, settings):
            return
        progress("Bringing the database schema up to date …")
        connection.execute(text("select pg_advisory_xact_lock(hashtext('kontor upgrade'))"))
        for schema in SCHEMAS:
            connection.exec_driver_sql(f"create schema if not exists {schema}")
        _migrate(connection)
        _rebuild_views(connection)
        seed_rules(connection)
        _settle_installation(connection, settings)


def _rebuild_views(connection: Connection) -> None:
    """Drop Kontor's views and their functions and make them anew; grants follow from the default privileges.

    Somebody's own views on top of them would be dropped along, so they are looked for first and named.
    """
    foreign = connection.scalars(text(_FOREIGN_DEPENDENTS)).all()
    if foreign:
        raise Refused(
            f"Views that are not Kontor's stand on schema report: {', '.join(foreign)}. Nothing was changed.",
            hint="Keep their definitions, drop them, run `kontor db upgrade`, and create them again.",
        )
    for statement in connection.scalars(text(_DROP_VIEWS)).all():
        connection.exec_driver_sql(statement)
    for script in view_scripts():
        _run_script(connection, script)


_FOREIGN_DEPENDENTS = """
select distinct n.nspname || '.' || c.relname
from pg_depend d
join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
join pg_class c on c.oid = r.ev_class
join pg_namespace n on n.oid = c.relnamespace
where n.nspname <> 'report'
  and (d.refobjid in (select oid from pg_class where relnamespace = 'report'::regnamespace)
       or d.refobjid in (select oid from pg_proc
                         where pronamespace = any(array['report', 'crm', 'ops']::regnamespace[])))
order by 1
"""

# Functions of the view scripts are the ones written in plain SQL; triggers' and migrations' functions are not.
_DROP_VIEWS = """
select format('drop view if exists %s cascade', c.oid::regclass)
from pg_class c where c.relkind = 'v' and c.relnamespace = 'report'::regnamespace
union all
select format('drop function if exists %s cascade', p.oid::regprocedure)
from pg_proc p join pg_language l on l.oid = p.prolang
where l.lanname = 'sql' and p.pronamespace = any(array['report', 'crm', 'ops']::regnamespace[])
"""


def view_scripts() -> list[Path]:
    """The SQL files of schema ``report`` in the order in which they build on each other."""
    return sorted(VIEWS.glob("*.sql"))


def _connect(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except OperationalError:
        raise DependencyDown(
            "The database cannot be reached.",
            hint="Check KONTOR_DATABASE_URL and that the server runs; for the embedded one, `kontor up`.",
        ) from None


def _check_server(connection: Connection) -> None:
    version = int(connection.scalar(text("show server_version_num")) or 0)
    if version < OLDEST_SERVER:
        raise Refused(
            f"The server is PostgreSQL {version // 10_000}; Kontor needs {OLDEST_SERVER // 10_000} or newer.",
            hint="Name a newer server in KONTOR_DATABASE_URL, or unset it to use the embedded one.",
        )


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for script in view_scripts():
        digest.update(script.read_bytes())
    return digest.hexdigest()


def _check_not_newer(connection: Connection) -> None:
    standing = standing_migration(connection)
    if standing is not None and standing not in _migrations():
        raise Refused(
            f"The database's schema stands at {standing}, which is newer than this version of Kontor knows"
            f" ({newest_migration()}). Nothing was changed.",
            hint="Install the version of Kontor that migrated it, or set KONTOR_HOME to another home.",
        )


def _is_current(connection: Connection, settings: Settings) -> bool:
    if standing_migration(connection) != newest_migration():
        return False
    row = connection.execute(text("select business_timezone, views_sha256 from ops.installation")).one_or_none()
    return row is not None and (row.business_timezone, row.views_sha256) == (settings.business_timezone, _fingerprint())


def _settle_installation(connection: Connection, settings: Settings) -> None:
    connection.execute(
        text(
            "insert into ops.installation (business_timezone, views_sha256) values (:zone, :views)"
            " on conflict (installation_id) do update"
            " set business_timezone = excluded.business_timezone, views_sha256 = excluded.views_sha256"
        ),
        {"zone": settings.business_timezone, "views": _fingerprint()},
    )
