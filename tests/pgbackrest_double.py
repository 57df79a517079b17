"""A stand-in for pgBackRest: the commands that Kontor calls, in its documented formats, for full backups only.

``make_double`` writes an executable ``pgbackrest`` into a folder. It copies with ``pg_basebackup`` and keeps the WAL
that lies in the server's folder, so that a whole check can be tried where pgBackRest is not installed.
What pgBackRest itself does is tried against the real one, in ``tests/database/test_pgbackrest.py``, where it is there.
"""

from __future__ import annotations

import sys
from pathlib import Path

# The server's account fetches WAL, and may not be able to run the tests' own Python.
_FETCH = """\
#!/bin/sh
for word; do case $word in archive-get) fetch=yes ;; esac; from=$to; to=$word; done
if [ "$fetch" = yes ]; then exec cp "{repository}/archive/$from" "$to"; fi
exec {python} "$0.py" "$@"
"""
_PROGRAM = """\
import json, os, re, shutil, subprocess, sys, time
from pathlib import Path

options = dict(re.fullmatch("--([^=]+)=?(.*)", a).groups() for a in sys.argv[1:] if a.startswith("--"))
words = [a for a in sys.argv[1:] if not a.startswith("--")]
if words[0] == "version":
    sys.exit(print("pgBackRest 2.99"))
config = dict(line.split("=", 1) for line in Path(options["config"]).read_text().splitlines() if "=" in line)
repo = Path(config["repo1-path"]); listed = repo / "info.json"; archive = repo / "archive"
there = json.loads(listed.read_text()) if listed.exists() else []
where = ["-h", config["pg1-socket-path"], "-p", config["pg1-port"], "-U", config["pg1-user"]]


def archive_all():
    subprocess.run([{psql!r}, *where, "-d", "postgres", "-qAtc", "select pg_switch_wal()"], check=True, stdout=2)
    time.sleep(0.3)
    for path in Path(config["pg1-path"], "pg_wal").glob("0*"):
        shutil.copyfile(path, archive / path.name)


if words[0] == "stanza-create":
    archive.mkdir(parents=True, exist_ok=True)
    listed.write_text("[]")
elif words[0] == "check":
    archive_all()
elif words[0] == "info":
    code = 1 if not listed.exists() else 0 if there else 2
    status = {{"code": code, "message": "said", "lock": {{"backup": {{"held": False}}}}}}
    print(json.dumps([{{"name": options["stanza"], "status": status, "backup": there, "archive": [], "db": []}}]))
elif words[0] == "backup":
    label = time.strftime("%Y%m%d-%H%M%SF", time.gmtime())
    copy = ["-D", str(repo / label), "-X", "none", "-c", "fast", "--no-sync"]
    subprocess.run([{basebackup!r}, *where, *copy], check=True)
    (repo / label / "backup_manifest").unlink()
    archive_all()
    size = {{"delta": 10, "size": 10, "repository": {{"delta": 10, "size": 10}}}}
    stamp = {{"start": int(time.time()), "stop": int(time.time())}}
    name, text = options["annotation"].split("=", 1)
    lsn = re.search("START WAL LOCATION: ([0-9A-F/]+)", (repo / label / "backup_label").read_text()).group(1)
    there.append({{"label": label, "type": "full", "prior": None, "annotation": {{name: text}}, "timestamp": stamp,
                  "lsn": {{"start": lsn, "stop": lsn}}, "info": size, "error": False}})
    listed.write_text(json.dumps(there))
elif words[0] == "verify":
    damaged = any((repo / entry["label"] / "damaged").exists() for entry in there)
    print(f"stanza: {{options['stanza']}}\\nstatus: {{'error' if damaged else 'ok'}}")
    for entry in there:
        print(f"  backup: {{entry['label']}}, status: valid, total files checked: 9, total valid files: 9")
        print(f"    missing: 0, checksum invalid: {{int(damaged)}}, size invalid: 0, other: 0")
elif words[0] == "restore":
    shutil.copytree(repo / options["set"], options["pg1-path"], dirs_exist_ok=True)
elif words[0] == "expire":
    shutil.rmtree(repo / options["set"])
    listed.write_text(json.dumps([entry for entry in there if entry["label"] != options["set"]]))
"""


def make_double(folder: Path, programs: Path, repository: Path) -> None:
    """Write the executable; ``programs`` are PostgreSQL's own, ``repository`` is the one of the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    text = _PROGRAM.format(psql=str(programs / "psql"), basebackup=str(programs / "pg_basebackup"))
    (folder / "pgbackrest.py").write_text(text)
    (folder / "pgbackrest").write_text(_FETCH.format(repository=repository, python=sys.executable))
    (folder / "pgbackrest").chmod(0o755)
