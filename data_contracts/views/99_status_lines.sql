-- All lines of the status, worst first: the union of every view report.status_<area> that stands in an earlier file.
do $$
begin
    execute (
        select 'create or replace view report.status_lines as '
               || 'select l.area, l.colour, l.headline, l.reason, l.next_command, '
               || 'array_position(array[''red'', ''yellow'', ''grey'', ''green''], l.colour) as rank from ('
               || string_agg(
                      'select area::text, colour::text, headline::text, reason::text, next_command::text from report.'
                      || quote_ident(v.viewname), ' union all ' order by v.viewname)
               || ') l'
        from pg_views v
        where v.schemaname = 'report' and v.viewname like 'status\_%' and v.viewname <> 'status_lines');
end
$$;
