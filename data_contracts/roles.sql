-- The roles of a Kontor database. For the embedded server Kontor runs this by itself; on a server of your own an
-- administrator runs it once, creates the databases `kontor` (owner kontor_owner) and `prefect` (owner
-- kontor_prefect), and grants kontor_owner and kontor_flows to the login that KONTOR_DATABASE_URL names.
--
--   kontor_owner      owns the schema and migrates it; also edits rules
--   kontor_flows      what flows work as: reads and writes business data, owns nothing
--   kontor_retention  alone may erase
--   kontor_finance    reads schema `report` and nothing else
--   kontor_prefect    owns Prefect's own database
--
-- PostgreSQL lets everybody store large objects. On a server of your own, in database `kontor`:
--   revoke execute on function lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) from public;
do $$
declare
    wanted text;
begin
    foreach wanted in array array['kontor_owner', 'kontor_flows', 'kontor_retention', 'kontor_finance', 'kontor_prefect']
    loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I login', wanted);
        end if;
    end loop;
end
$$;
