-- lapse.preview: what a policy would do if it ran now, in lines for people.
--
-- In: the policy, and how far to count. Out: what, and what is to be said of it: rows due now and soon, the
-- oldest, their share of the table, what foreign keys take along, files, the index, the time it takes, what stands
-- in the way, and what is not known. Errors as of lapse.preview_json, which says the same to programs.
-- Reads only.

create or replace function lapse.preview(p_policy text, p_cap integer default 100000)
    returns table (what text, says text)
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    with document as materialized (
        select lapse.preview_json(p_policy, p_cap) as d
    )
    select l.what, l.says
      from document as o
     cross join lateral (
           select 10, 'policy', concat(o.d ->> 'policy', case when (o.d ->> 'enabled')::boolean then '' else ', paused' end,
                                       ', ', o.d ->> 'schedule', coalesce(': ' || nullif(o.d ->> 'description', ''), ''))
           union all
           select 20, 'table', concat(o.d ->> 'target',
                                      ', ' || case when (o.d -> 'table' ->> 'estimated')::boolean then 'about ' else '' end
                                      || nullif(o.d -> 'table' ->> 'rows', '') || ' rows')
            where o.d ->> 'target' is not null
           union all
           select 30 + h.place::integer, 'due ' || case when h.name = 'now' then 'now' else 'within ' || h.name end,
                  concat(case when (o.d -> 'due' -> h.name ->> 'at_least')::boolean then 'at least ' end,
                         o.d -> 'due' -> h.name ->> 'rows', ' rows',
                         case when h.name = 'now' and o.d ->> 'share' is not null
                              then format(', %s %% of the table', round((o.d ->> 'share')::numeric * 100, 2)) end)
             from unnest('{now,1 hour,24 hours,7 days}'::text[]) with ordinality as h (name, place)
            where o.d -> 'due' ? h.name
           union all
           select 40, 'oldest', 'due since ' || (o.d ->> 'oldest_due') where o.d ->> 'oldest_due' is not null
           union all
           select 41, 'set aside', (o.d ->> 'blocked_rows') || ' rows: see lapse.blocked_row'
            where (o.d ->> 'blocked_rows')::bigint > 0
           union all
           select 42, 'held', (o.d ->> 'held_rows') || ' rows: see lapse.hold'
            where (o.d ->> 'held_rows')::bigint > 0
           union all
           select 50, 'refers to it', concat(
                  c.relation, ': ', case when c.at_least then 'at least ' end, coalesce(c.rows::text, 'not known how many'),
                  ' rows ',
                  case c.on_delete when 'cascade' then 'go with it' when 'set null' then 'are set to null'
                                   when 'set default' then 'are set to their default' else 'stand in the way' end,
                  ' (', c.name, ', ', c.on_delete, ')')
             from jsonb_to_recordset(case when jsonb_typeof(o.d -> 'children') = 'array' then o.d -> 'children' else '[]' end)
                  as c (relation text, name text, on_delete text, rows bigint, at_least boolean)
           union all
           select 60, 'files', concat(f.relation, ': ', case when f.at_least then 'at least ' else 'at most ' end,
                                      coalesce(f.rows::text, 'not known how many'), ' by column ', f.name)
             from jsonb_to_recordset(case when jsonb_typeof(o.d -> 'files') = 'array' then o.d -> 'files' else '[]' end)
                  as f (relation text, name text, rows bigint, at_least boolean)
           union all
           select 70, 'index', case when (o.d -> 'index' ->> 'ok')::boolean
                                    then coalesce(o.d -> 'index' ->> 'index_name', 'none is needed')
                                    else o.d -> 'index' ->> 'problem' end
            where o.d -> 'index' ->> 'ok' is not null
           union all
           select 71, 'plan', p.line
             from regexp_split_to_table(o.d -> 'index' ->> 'plan', chr(10)) as p (line)
           union all
           select 80, 'it takes', concat(case when (o.d -> 'estimate' ->> 'at_least')::boolean then 'at least ' else 'about ' end,
                                         o.d -> 'estimate' ->> 'seconds', ' s, ', o.d -> 'estimate' ->> 'batches', ' batches in ',
                                         o.d -> 'estimate' ->> 'runs', ' runs (', o.d -> 'estimate' ->> 'basis', ')')
            where (o.d -> 'estimate' ->> 'batches')::numeric > 0
           union all
           select 90, 'beware', f.line from jsonb_array_elements_text(o.d -> 'findings') as f (line)
           union all
           select 95, 'not known', f.line from jsonb_array_elements_text(o.d -> 'not_known') as f (line)
     ) as l (place, what, says)
     order by l.place
$$;

comment on function lapse.preview(text, integer) is
    'What a policy would do if it ran now: rows, cascades, index, time, what stands in the way. Reads only.';
