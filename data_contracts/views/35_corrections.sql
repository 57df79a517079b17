-- Who corrected what: one line per changed cell, and one per row that was given up.

create or replace view report.corrections as
select f.file_name, f.contract, q.row_number, c.column_name, c.old_value, c.new_value, c.outcome, c.reason,
       q.state, c.actor, c.corrected_at, f.as_of, q.customer_number, c.quarantined_row_id, c.run_id, c.correction_id
from landing.corrections c
join landing.quarantined_rows q using (quarantined_row_id)
join landing.feed_files f using (feed_file_id);
