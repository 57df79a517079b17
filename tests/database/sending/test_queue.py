"""The queue against a real database and a real server: what is sent, what is not, and what stands written then."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from configs.settings import Settings
from tasks.database import FLOWS, engine_for
from tasks.errors import DependencyDown, PartlyDone, Refused
from tasks.reminders.sending import outbox_store, shared_queue
from tasks.reminders.sending.delivery import Sent, send_queue
from tasks.reminders.sending.queue_store import next_mails
from tasks.reminders.sending.shared_queue import send_share, send_shared
from tasks.side_by_side import start_share
from tests.conftest import empty_database
from tests.dask_cluster import die
from tests.outbox import Queue, begin_run, clock, fill_queue
from tests.smtp_server import Behaviour, FaultyServer, faulty_server


def settings_for(queue: Queue, url: str, **more: object) -> Settings:
    """Settings that send to this server with short time-outs."""
    return queue.settings.model_copy(
        update={
            "mail_mode": "live",
            "mail_from": "Kontor Ltd <office@kontor.example>",
            "smtp_url": SecretStr(url),
            "smtp_timeout_seconds": 2.0,
            "smtp_answer_timeout_seconds": 0.5,
            **more,
        }
    )


def sending(queue: Queue, server: FaultyServer | None = None, *, url: str = "", **more: object) -> Sent:
    """Send the queue to this server with short time-outs, as a run would."""
    live = settings_for(queue, server.plain_url if server else url, **more)
    return send_queue(engine_for(queue.settings, FLOWS), live, queue.claim, day=queue.day, clock=clock, any_hour=True)


def test_a_queue_is_sent_once_and_a_second_run_changes_nothing(kontor_settings: Settings) -> None:
    """Each customer gets one mail with a record of its answer; sending again sends none and changes no row."""
    queue = fill_queue(kontor_settings, 12)
    with faulty_server() as server:
        sent = sending(queue, server)
        assert sent.counts() == {"mails_sent": 12}
        assert queue.states() == {"sent": 12}
        assert Counter(one.recipients for one in server.taken) == {
            (f"c-{n}@customer.example",): 1 for n in range(1, 13)
        }
        rows = queue.rows(
            "select reminder_id, message_id, subject, attempts, sent_at, state_reason from outbox.reminders"
        )
        assert sorted(row["message_id"] for row in rows) == sorted(server.ids())
        assert {(row["attempts"], row["state_reason"], row["sent_at"] is None) for row in rows} == {(1, None, False)}
        answers = queue.rows("select smtp_code, outcome, mode from outbox.deliveries")
        assert answers == [{"smtp_code": 250, "outcome": "sent", "mode": "live"}] * 12
        before = queue.rows("select * from outbox.reminders order by 1") + queue.rows("select * from outbox.deliveries")
        assert sending(queue, server).counts() == {}
        assert len(server.taken) == 12
        assert before == queue.rows("select * from outbox.reminders order by 1") + queue.rows(
            "select * from outbox.deliveries"
        )


@pytest.mark.parametrize(
    ("behaviour", "state"),
    [
        (Behaviour.REFUSE_CONTENT, "refused"),
        (Behaviour.REFUSE, "refused"),
        (Behaviour.DEFER, "deferred"),
        (Behaviour.DEFER_CONTENT, "deferred"),
        (Behaviour.DROP_AFTER_CONTENT, "unknown"),
        (Behaviour.STALL_AFTER_CONTENT, "unknown"),
        (Behaviour.GARBAGE_AFTER_CONTENT, "unknown"),
        (Behaviour.LATE, "sent"),
    ],
)
def test_a_fault_of_the_server_is_the_state_of_its_mail_alone(
    kontor_settings: Settings, behaviour: Behaviour, state: str
) -> None:
    """One mail meets the fault, the others arrive; no later run delivers any of them a second time."""
    queue = fill_queue(kontor_settings, 3, items=1)
    with faulty_server() as server:
        server.play(Behaviour.TAKE, behaviour)
        sending(queue, server)
        states = dict(Counter(row["state"] for row in queue.rows("select state from outbox.reminders")))
        assert states == dict(Counter(["sent", state, "sent"]))
        sending(queue, server)
        ids = server.ids()
        assert len(ids) == len(set(ids))
        [row] = queue.rows("select state, next_attempt_at, state_reason from outbox.reminders where reminder_id = 2")
        assert row["state"] == state
        assert (row["next_attempt_at"] is not None) == (state == "deferred")
        assert (row["state_reason"] is not None) == (state != "sent")


def test_a_deferred_mail_is_tried_again_after_its_pause_and_keeps_its_message_id(kontor_settings: Settings) -> None:
    """Not before the pause has passed, then with the same Message-ID; the pause doubles from a quarter of an hour."""
    queue = fill_queue(kontor_settings, 1)
    with faulty_server() as server:
        server.play(Behaviour.DEFER, Behaviour.DEFER)
        sending(queue, server)
        sending(queue, server)
        [first] = queue.rows(_PAUSES)
        assert (first["attempts"], first["minutes"]) == (1, 15)
        queue.change("update outbox.reminders set next_attempt_at = now()")
        sending(queue, server)
        [second] = queue.rows(_PAUSES)
        assert (second["attempts"], second["minutes"]) == (2, 30)
        queue.change("update outbox.reminders set next_attempt_at = now()")
        sending(queue, server)
        assert queue.states() == {"sent": 1}
        assert server.ids() == [first["message_id"]]
        assert len(queue.rows("select * from outbox.deliveries")) == 3


_PAUSES = """
select attempts, message_id, round(extract(epoch from next_attempt_at - updated_at) / 60)::integer as minutes
from outbox.reminders
"""


def test_in_mode_hold_every_mail_is_a_file_and_none_is_sent(kontor_settings: Settings) -> None:
    """The mails lie as files for reading and stand as held; released, they go through the gate again."""
    queue = fill_queue(kontor_settings, 2)
    assert sending(queue, url="smtp://nowhere.example", mail_mode="hold").counts() == {"mails_held": 2}
    files = queue.rows("select eml_path from outbox.deliveries")
    assert all(row["eml_path"].endswith(".eml") for row in files)
    assert {
        row["state_reason"].partition(":")[0] for row in queue.rows("select state_reason from outbox.reminders")
    } == {"mail_mode"}
    with engine_for(queue.settings).begin() as connection:
        assert outbox_store.release_mails(connection, [1, 2], now=clock()) == [1, 2]
    with faulty_server() as server:
        sending(queue, server)
        assert queue.states() == {"sent": 2}


def test_what_was_paid_since_the_plan_is_not_sent(kontor_settings: Settings) -> None:
    """An item that left the ledger leaves the digest, a mail without items is cancelled; what is paid is not told."""
    queue = fill_queue(kontor_settings, 2, items=2)
    queue.change("update crm.invoices set listed_until = :day where organization_id = 1", day=queue.day)
    queue.change("update crm.invoices set open_amount = 0 where organization_id = 2 and invoice_number like '%/1'")
    with faulty_server() as server:
        sent = sending(queue, server)
        assert (sent.counts(), dict(sent.cancelled)) == ({"mails_sent": 1, "mails_cancelled": 1}, {"paid": 1})
        body = server.taken[0].message.get_body(("plain",))
        assert body is not None
        assert "C-2/2" in body.get_content()
        assert "C-2/1" not in body.get_content()
    released = queue.rows("select invoice_id, release_reason from outbox.reminder_items where released_at is not null")
    assert {row["release_reason"].partition(":")[0] for row in released} == {"paid"}
    assert len(released) == 3


def test_an_invoice_that_somebody_holds_is_left_for_later_and_never_waited_for(kontor_settings: Settings) -> None:
    """While a payment run holds an invoice its mail stays in the queue and the others go; afterwards it goes too."""
    queue = fill_queue(kontor_settings, 3, items=1)
    with faulty_server() as server:
        with engine_for(kontor_settings, FLOWS).begin() as connection:
            connection.execute(text("update crm.invoices set note = 'x' where organization_id = 2"))
            sending(queue, server)
            assert queue.states() == {"sent": 2, "planned": 1}
        sending(queue, server)
        assert queue.states() == {"sent": 3}


def test_two_senders_at_once_share_the_queue_without_sending_anything_twice(kontor_settings: Settings) -> None:
    """Both take what the other does not hold; together they send each mail once."""
    queue = fill_queue(kontor_settings, 40, items=1)
    other = Queue(queue.settings, queue.day, begin_run(kontor_settings, queue.day))
    with faulty_server() as server:
        threads = [threading.Thread(target=sending, args=(one, server)) for one in (queue, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert queue.states() == {"sent": 40}
        assert len(server.ids()) == len(set(server.ids())) == 40


def test_two_processes_send_one_queue_and_their_counts_add_up(
    kontor_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one setting a second process helps: each mail leaves once, and the run's counts are of both."""
    monkeypatch.setattr(shared_queue, "WORTH_A_PROCESS", 20)
    _send_forty_together(kontor_settings)


@pytest.mark.campaign
def test_a_worker_of_dask_helps_to_send_a_queue_and_one_that_dies_is_told_of(
    kontor_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same by a worker; where it is killed the run sends what is there and ends in words."""
    monkeypatch.setattr(shared_queue, "WORTH_A_PROCESS", 20)
    _send_forty_together(kontor_settings, dask="local")
    empty_database(kontor_settings)
    monkeypatch.setattr(shared_queue, "send_share", die)
    with pytest.raises(DependencyDown, match="A worker of Dask's"):
        _send_forty_together(kontor_settings, dask="local")


def _send_forty_together(kontor_settings: Settings, dask: str | None = None) -> None:
    queue = fill_queue(kontor_settings, 40, items=1)
    with faulty_server() as server:
        live = settings_for(queue, server.plain_url, processes=2, dask=dask)
        try:
            sent = send_shared(engine_for(queue.settings, FLOWS), live, queue.claim, day=queue.day, any_hour=True)
            assert sent.counts() == {"mails_sent": 40}
        finally:
            assert queue.states() == {"sent": 40}
            assert len(server.ids()) == len(set(server.ids())) == 40


@pytest.mark.campaign
def test_a_helper_that_cannot_reach_the_mail_server_says_so_in_our_words(kontor_settings: Settings) -> None:
    """Its error crosses over as it is; the mails stay in the queue."""
    queue = fill_queue(kontor_settings, 2, items=1)
    live = settings_for(queue, "smtp://127.0.0.1:1?tls=none")
    share = start_share(send_share, live, queue.claim, day=queue.day, any_hour=True, past_run=None, data_day=None)
    with pytest.raises(DependencyDown):
        share.result()
    assert queue.states() == {"planned": 2}


def test_a_run_that_was_written_off_takes_nothing(kontor_settings: Settings) -> None:
    """When the next run has called it dead, it must not go on beside it."""
    queue = fill_queue(kontor_settings, 1)
    queue.change(
        "update ops.run_ledger set state = 'abandoned', ended_at = now() where run_id = :id", id=queue.claim.run_id
    )
    with faulty_server() as server, pytest.raises(Refused, match="another run took over"):
        sending(queue, server)
    assert queue.states() == {"planned": 1}


def test_a_server_that_is_away_costs_no_mail(kontor_settings: Settings) -> None:
    """Nothing is claimed when it is away from the start; what it leaves undone when it goes stays in the queue."""
    queue = fill_queue(kontor_settings, 6, items=1)
    with pytest.raises(DependencyDown):
        sending(queue, url="smtp://127.0.0.1:1?tls=none")
    assert queue.states() == {"planned": 6}
    with faulty_server() as server:
        server.behave = lambda _line: Behaviour.BUSY if len(server.taken) >= 2 else Behaviour.TAKE
        sending(queue, server)
        assert queue.states() == {"sent": 2, "deferred": 4}


def test_a_server_that_takes_nothing_stops_the_run(kontor_settings: Settings) -> None:
    """After ten refusals in a row, or three silences, the rest is left alone for a person to look at first."""
    queue = fill_queue(kontor_settings, 30, items=1)
    with faulty_server() as server:
        server.behave = lambda _line: Behaviour.REFUSE_SENDER
        with pytest.raises(PartlyDone, match="took none of the last 10"):
            sending(queue, server)
        states = queue.states()
        assert states["refused"] == 10
        assert sum(states.values()) == 30


def test_an_address_that_does_not_exist_is_written_to_no_more(kontor_settings: Settings) -> None:
    """550 at the recipient suppresses the address, gives the reservation back, opens a task; a policy's no does not."""
    queue = fill_queue(kontor_settings, 2, items=1)
    with faulty_server() as server:
        server.play(Behaviour.REFUSE, Behaviour.REFUSE_CONTENT)
        sending(queue, server)
    assert queue.states() == {"refused": 2}
    assert queue.rows("select email, kind from outbox.suppressions") == [
        {"email": "c-1@customer.example", "kind": "hard_bounce"}
    ]
    assert [
        row["reminder_id"]
        for row in queue.rows("select reminder_id from outbox.reminder_items where released_at is not null")
    ] == [1]
    assert queue.rows("select kind, organization_id from ops.reminder_tasks") == [
        {"kind": "address_bounced", "organization_id": 1}
    ]


def test_a_mail_that_a_dead_run_was_sending_becomes_unknown_and_blocks_its_items(kontor_settings: Settings) -> None:
    """It is not sent again, whatever is planned; a person resolves it, as sent or as not sent, once."""
    queue = fill_queue(kontor_settings, 2, items=1)
    queue.change(
        "update outbox.reminders set state = 'sending', claimed_by = 'run 1 of a dead process', claimed_at = now()"
    )
    with engine_for(kontor_settings).begin() as connection:
        assert outbox_store.call_dead_unknown(connection, clock()) == [1, 2]
    with faulty_server() as server:
        sending(queue, server)
        assert server.taken == []
    assert queue.states() == {"unknown": 2}
    [line] = queue.rows("select colour, headline from report.status_outbox")
    assert (line["colour"], line["headline"]) == ("red", "2 mail(s) may or may not have arrived")
    with engine_for(kontor_settings).begin() as connection:
        given = {"author": "eva", "reason": "she rang", "now": clock()}
        assert outbox_store.resolve(connection, 1, arrived=True, **given) == "sent"  # type: ignore[arg-type]
        assert outbox_store.resolve(connection, 2, arrived=False, **given) == "cancelled"  # type: ignore[arg-type]
        with pytest.raises(Refused, match="is sent; only a mail that is unknown"):
            outbox_store.resolve(connection, 1, arrived=False, **given)  # type: ignore[arg-type]
    assert [
        row["reminder_id"]
        for row in queue.rows("select reminder_id from outbox.reminder_items where released_at is null")
    ] == [1]


def test_a_refused_mail_is_freed_by_a_person(kontor_settings: Settings) -> None:
    """What the server would not have can be given up, never called sent; then its items are free."""
    queue = fill_queue(kontor_settings, 1, items=1)
    queue.change("update outbox.reminders set state = 'refused', state_reason = 'server: 554 no', attempts = 1")
    with engine_for(kontor_settings).begin() as connection, pytest.raises(Refused, match="is refused; only a mail"):
        outbox_store.resolve(connection, 1, arrived=True, author="eva", reason="no", now=clock())
    with engine_for(kontor_settings).begin() as connection:
        assert (
            outbox_store.resolve(connection, 1, arrived=False, author="eva", reason="gone", now=clock()) == "cancelled"
        )
    assert queue.states() == {"cancelled": 1}
    assert queue.rows("select count(*) as held from outbox.reminder_items where released_at is null") == [{"held": 0}]


def test_the_answer_of_a_run_thought_dead_still_counts(kontor_settings: Settings) -> None:
    """A mail called unknown turns into what the server said as soon as its run tells; a person's word stays."""
    queue = fill_queue(kontor_settings, 2, items=1)
    with faulty_server() as server:

        def call_dead(_line: str) -> Behaviour:
            queue.change("update outbox.reminders set state = 'unknown' where state = 'sending'")
            queue.change(
                "update outbox.reminders set state = 'cancelled', state_reason = 'resolved' where reminder_id = 2"
            )
            return Behaviour.TAKE

        server.behave = call_dead
        sending(queue, server)
    rows = queue.rows("select reminder_id, state, state_reason from outbox.reminders order by 1")
    assert rows == [
        {"reminder_id": 1, "state": "sent", "state_reason": None},
        {"reminder_id": 2, "state": "cancelled", "state_reason": "resolved"},
    ]
    assert len(queue.rows("select * from outbox.deliveries")) == 2


def test_a_mail_planned_for_a_past_day_does_not_leave(kontor_settings: Settings) -> None:
    """Only a person's approval, or a run that says so, sends what was planned for a day that had passed."""
    queue = fill_queue(kontor_settings, 2, items=1)
    queue.change("update outbox.reminders set as_of = as_of - 3")
    with faulty_server() as server:
        assert sending(queue, server).counts() == {}
        with engine_for(kontor_settings).begin() as connection:
            assert outbox_store.approve(connection, [1], author="eva", now=clock()) == [1]
        assert sending(queue, server).counts() == {"mails_sent": 1}


def test_mail_leaves_in_the_customers_office_hours_only(kontor_settings: Settings) -> None:
    """Office hours are those of the customer's country; one without a rule of its own follows the general one."""
    queue = fill_queue(kontor_settings, 3, items=1, country="SE")
    queue.change("update crm.organizations set country = 'BG' where organization_id = 2")
    queue.change("update crm.organizations set country = 'JP' where organization_id = 3")
    open_at = {6: [], 7: [1, 2, 3], 14: [1, 2, 3], 15: [], 1: []}  # UTC in winter; 09:00 to 17:00 and 08:00 to 16:00
    with engine_for(kontor_settings).connect() as connection:
        for hour, mails in open_at.items():
            now = datetime(2026, 1, 15, hour, 30, tzinfo=UTC)
            assert next_mails(connection, now, 10, [], any_hour=False, past_run=None) == mails
            assert next_mails(connection, now, 10, [], any_hour=True, past_run=None) == [1, 2, 3]


def test_a_week_in_the_queue_is_long_enough(kontor_settings: Settings) -> None:
    """What has waited longer than a week is cancelled and gives its reservations back."""
    queue = fill_queue(kontor_settings, 2, items=1)
    queue.change("update outbox.reminders set planned_at = now() - interval '8 days' where reminder_id = 1")
    with engine_for(kontor_settings).begin() as connection:
        assert outbox_store.expire(connection, clock()) == [1]
        assert outbox_store.expire(connection, clock()) == []
    assert queue.states() == {"planned": 1, "cancelled": 1}
    assert [
        row["invoice_id"]
        for row in queue.rows("select invoice_id from outbox.reminder_items where released_at is null")
    ] == [2]
