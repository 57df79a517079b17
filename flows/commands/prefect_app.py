"""Prefect's server application, with what SQLAlchemy 2.1 broke in it mended: without this no schedule starts a run.

Prefect 3.8 inserts scheduled runs in bulk, from mappings that also carry the hybrid property ``state``, which is no
column: states are inserted by a second statement. SQLAlchemy 2.0 passed over such a key; 2.1 raises ``Can't evaluate
bulk DML statement`` unless the property says what a bulk insert does with it. Here it says: nothing, as before.

Once Prefect says so itself, :func:`let_states_pass` finds nothing to do, and Prefect's own factory may be started.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from tasks.garbage import collect_seldom

if TYPE_CHECKING:
    from fastapi import FastAPI


def let_states_pass() -> list[str]:
    """Give the runs' property ``state`` a rule for bulk inserts where it has none; returns the models changed."""
    from prefect.server.database import orm_models

    changed = []
    for model in (orm_models.FlowRun, orm_models.TaskRun):
        state: Any = vars(model)["state"]
        if state.bulk_dml_setter is None:
            state.bulk_dml_setter = _leave_to_its_own_statement
            changed.append(model.__name__)
    return changed


def _leave_to_its_own_statement(_model: type, _mapping: MutableMapping[str, Any], _state: object) -> None:
    """A bulk insert of runs writes no states."""


def create_app() -> FastAPI:
    """The application that uvicorn serves."""
    collect_seldom()
    from prefect.server.api.server import create_app as prefects_own

    let_states_pass()
    return prefects_own()
