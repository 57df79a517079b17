"""Whether a flow may go on: the rules it requires hold, as far as the newest data-quality run knows.

``rules.quality_requirement`` says which flow requires which rule. An open incident of severity fail stops the flow, and
so does a required rule that the newest run could not ask: what nobody knows is not good. A rule that was never asked
stops nothing, so that a new installation can begin.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, text

from tasks.errors import Refused

_TOLD = 5


def require_quality(connection: Connection, flow: str, as_of: date) -> None:
    """Return when every rule holds that ``flow`` requires on that day.

    Raises:
        Refused: naming the incidents, or the rules that could not be asked.
    """
    given = {"flow": flow, "as_of": as_of}
    incidents = connection.execute(text(_INCIDENTS), given).all()
    if incidents:
        told = "".join(f"\n  - incident {row.incident_id}, {row.rule_id}: {row.reason}" for row in incidents[:_TOLD])
        more = f"\n  - and {len(incidents) - _TOLD} more" if len(incidents) > _TOLD else ""
        raise Refused(
            f"{flow} requires rules of data quality that do not hold; nothing was changed.{told}{more}",
            hint=f"`kontor quality show {incidents[0].incident_id}` tells it. Mend it, run `kontor quality run`,"
            f" or `kontor quality waive {incidents[0].incident_id} --until DATE --reason TEXT`, then run {flow} again.",
        )
    errors = connection.execute(text(_ERRORS), given).all()
    if errors:
        told = "".join(f"\n  - {row.rule_id}: {row.error}" for row in errors)
        raise Refused(
            f"{flow} requires rules of data quality that could not be asked; nothing was changed.{told}",
            hint="docs/runbooks/data_quality.md says what the codes mean; mend it and run `kontor quality run`.",
        )


_INCIDENTS = """
select i.incident_id, i.rule_id, i.reason
from ops.quality_incidents i
where i.state = 'open' and i.severity = 'fail'
  and i.rule_id in (select q.required_rule from rules.quality_requirement q
                    where q.flow = :flow and q.valid @> cast(:as_of as date))
order by i.incident_id
"""

_ERRORS = """
select n.rule_id, n.error
from rules.quality_requirement r
cross join lateral (
    select q.rule_id, q.state, q.error from ops.quality_results q
    where q.rule_id = r.required_rule and q.engine = 'sql' order by q.as_of desc, q.quality_result_id desc limit 1
) n
where r.flow = :flow and r.valid @> cast(:as_of as date) and n.state = 'error'
order by n.rule_id
"""
