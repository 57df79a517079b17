"""What a person says when a run is started by hand, kept in our database; Prefect is given its id only.

Prefect stores the parameters of a run in clear, for as long as it stores the run, and shows them to whoever opens its
pages. Paths, names of files and reasons are what somebody typed, and may name a person. So they are written to
``ops.instructions`` first, and the flow's parameters carry the id under which they stand there.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar
from uuid import UUID, uuid4

from pydantic import BaseModel
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from tasks.errors import UsageError

T = TypeVar("T", bound=BaseModel)


def keep_instruction(connection: Connection, flow: str, said: BaseModel, *, actor: str, now: datetime) -> UUID:
    """The id under which what was said stands from now on; the caller commits."""
    instruction_id = uuid4()  # not to be guessed from another one
    connection.execute(
        text(
            "insert into ops.instructions (instruction_id, flow, actor, said, given_at)"
            " values (:instruction_id, :flow, :actor, :said, :now)"
        ).bindparams(bindparam("said", type_=JSONB)),
        {
            "instruction_id": instruction_id,
            "flow": flow,
            "actor": actor,
            "said": said.model_dump(mode="json", exclude_defaults=True),
            "now": now,
        },
    )
    return instruction_id


def fetch_instruction(connection: Connection, flow: str, instruction_id: UUID | None, kind: type[T]) -> T:
    """What was said under this id; without an id, what a schedule says, which is nothing.

    Raises:
        UsageError: nothing was said under it, or to another flow.
    """
    if instruction_id is None:
        return kind()
    said = connection.scalar(
        text("select said from ops.instructions where instruction_id = :id and flow = :flow"),
        {"id": instruction_id, "flow": flow},
    )
    if said is None:
        raise UsageError(
            f"No instruction {instruction_id} was given to {flow}.",
            hint="Start the run with `kontor import`, `kontor run` or `kontor quarantine replay`, which give one;"
            " or leave the parameter empty.",
        )
    return kind.model_validate(said)
