"""A database made in a sibling folder and renamed last, and the configuration written at each start."""

from __future__ import annotations

import pwd
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress

from tasks.errors import DependencyDown, Refused
from tasks.local_stack.accounts import last_words, run_as, write_as
from tasks.local_stack.folders import own_folder, sync_folder
from tasks.local_stack.known import ROLES, SERVICE_ACCOUNTS, SUPERUSER, Site

_HBA = """\
# Written by Kontor at each start. The kernel says who is at the other end; there are no passwords and no TCP.
local all         all peer map=kontor
local replication all peer map=kontor
"""


_SETTINGS = """\
# Written by Kontor at each start; ALTER SYSTEM overrides it.
cluster_name = 'kontor'
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'

# A small server: one application, bulk loads once a week, a laptop's memory.
max_connections = 100
shared_buffers = '256MB'
work_mem = '16MB'
maintenance_work_mem = '256MB'
effective_cache_size = '1GB'
random_page_cost = 1.1
jit = off                               # costs more than it saves on queries of this size

# Few, long checkpoints: a bulk load should not meet one. What a crash costs is the reading of at most this much WAL.
checkpoint_timeout = '15min'
max_wal_size = '2GB'
min_wal_size = '256MB'
wal_compression = on

# Base backups, incremental backups and WAL receivers work without a restart.
wal_level = replica
summarize_wal = on
max_wal_senders = 4
max_replication_slots = 4
fsync = on
full_page_writes = on

# The log outlives an erasure and is read by people who may not read the tables, so no row's content may enter it.
# Statement text and parameters are off; terse drops DETAIL ("Key (email)=(…) already exists"); and errors as such are
# left to the client that caused them, since a primary message can quote a value ('invalid input syntax: "…"'). What
# stays is the life of the server: starts, stops, checkpoints, crashes, refused logins.
logging_collector = on
log_filename = 'postgresql-%a.log'
log_rotation_age = '1d'
log_rotation_size = 0
log_truncate_on_rotation = on
log_file_mode = 0600
log_line_prefix = '%m [%p] '
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_statement = 'none'
log_duration = off
log_min_duration_statement = -1
log_min_duration_sample = -1
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_connections = ''
log_disconnections = off
log_replication_commands = off
log_temp_files = -1
"""


def finish_restore(site: Site) -> None:
    """Bring a restored folder into its place where a restore was killed just before; else nothing."""
    note = site.folder / "restoring"
    if not note.exists():
        return
    fresh = site.place / note.read_text(encoding="ascii")
    if not site.data.exists() and fresh.is_dir():
        fresh.rename(site.data)
        sync_folder(site.place)
    note.unlink()


def ensure_database(site: Site, progress: Callable[[str], None]) -> None:
    """Make the database where there is none, after whatever a killed making of one left has been removed.

    Raises:
        Refused: it is of another major version, or what lies there is not a database; nothing was touched.
        DependencyDown: initdb did not succeed; nothing half-done is left.
    """
    data = site.data
    for half_done in site.place.glob("data.new-*"):
        shutil.rmtree(half_done)
    if (data / "PG_VERSION").is_file():
        _check_version(site)
    elif data.is_dir() and any(data.iterdir()):
        raise Refused(
            f"{data} holds files but no PG_VERSION, so it is not a database; nothing was changed.",
            hint=f"Move {data} away, then run it again for an empty database.",
        )
    else:
        progress("Making a new PostgreSQL database…")
        _make_database(site)


def _check_version(site: Site) -> None:
    """Refuse a database of another major version before anything of it is touched."""
    found = (site.data / "PG_VERSION").read_text(encoding="ascii").strip()
    said = run_as(site.account, [str(site.programs / "postgres"), "--version"])
    if said.returncode != 0:
        raise DependencyDown(
            f"{site.programs / 'postgres'} does not run (code {said.returncode}): {last_words(said.stderr)}",
            hint="Run `make install` again, or set KONTOR_DATABASE_URL to a PostgreSQL server.",
        )
    ours = re.sub(r"\D*(\d+).*", r"\1", said.stdout.decode("ascii", "replace"), flags=re.DOTALL)
    if found != ours:
        raise Refused(
            f"{site.data} is of PostgreSQL {found}, the programs are of {ours}; nothing was changed.",
            hint=f"Start it with the release of Kontor that brought PostgreSQL {found}, back it up, "
            "then restore the backup into a new KONTOR_HOME.",
        )


def _make_database(site: Site) -> None:
    """Make the database in a sibling folder and rename it last: killed before that, the next start begins anew.

    Synced to disk by initdb as usual: with 1,000 small files that costs less than the rest of it varies by.
    """
    fresh = site.place / f"data.new-{secrets.token_hex(4)}"
    own_folder(fresh, site.account)
    command = [str(site.programs / "initdb"), f"--pgdata={fresh}", f"--username={SUPERUSER}"]
    command += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    command += ["--data-checksums", "--text-search-config=simple", "--auth-local=peer", "--auth-host=reject"]
    # initdb holds the lock too: if we are killed, the next start waits until it has stopped writing.
    done = run_as(site.account, [*command, "--no-instructions"], keep=(site.lock,))
    if done.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        raise DependencyDown(
            f"PostgreSQL could not make a database below {site.place} (code {done.returncode}): "
            f"{last_words(done.stderr)}",
            hint="Check free space and limits on that disk, then run it again; nothing half-done is left.",
        )
    original = (fresh / "postgresql.conf").read_text(encoding="utf-8")
    write_as(site.account, fresh / "postgresql.conf", f"{original}\ninclude 'kontor.conf'\n")
    with suppress(FileNotFoundError):
        site.data.rmdir()  # an empty one that somebody prepared
    fresh.rename(site.data)
    sync_folder(site.place)


def configure(site: Site) -> None:
    """Write the three configuration files anew where they differ."""
    write_as(site.account, site.data / "kontor.conf", _SETTINGS)
    write_as(site.account, site.data / "pg_hba.conf", _HBA)
    write_as(site.account, site.data / "pg_ident.conf", _ident_map(site))


def _ident_map(site: Site) -> str:
    """Return who may be whom: root, the home's owner and the server's own account may be any role of ours.

    A service account that Kontor shares with other programs is left out. A sealed database lets in the superuser only.
    """
    names = {pwd.getpwuid(0).pw_name}
    if site.account.name not in SERVICE_ACCOUNTS or not site.account.switch:
        names.add(site.account.name)
    with suppress(KeyError):  # a home of somebody without a name: nobody to let in
        names.add(pwd.getpwuid(site.home.stat().st_uid).pw_name)
    roles = (SUPERUSER,) if (site.folder / "sealed").exists() else ROLES
    lines = [f'kontor "{name}" "{role}"\n' for name in sorted(names) for role in roles]
    return "# Written by Kontor at each start: map, operating-system user, role.\n" + "".join(lines)
