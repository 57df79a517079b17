"""Which columns hold personal data: the one list of them, ``data_contracts/personal_data.yaml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import yaml

from configs.settings import PROJECT_ROOT

ALLOWLIST = PROJECT_ROOT / "data_contracts" / "personal_data.yaml"

Allowlist = Mapping[str, Mapping[str, Sequence[str]]]


def read_allowlist(path: Path = ALLOWLIST) -> Allowlist:
    """The names of columns by table, under ``personal`` and ``other``; read once as long as the file is the same."""
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, _changed_at: int) -> Allowlist:
    listed: Allowlist = yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader)
    return listed
