-- lapse.doctor_statuses: are there rows in a state that no policy knows?
--
-- In: the time. Out: findings for lapse.doctor. Where a policy's predicate names a text or enum
-- column (status = 'active'), rows with a value that nothing names never lapse: a
-- state that was added to the application and forgotten here. Named is what stands, in quotes,
-- in a predicate, description or step of a policy on that table, in one of our triggers on it,
-- or in a routine of a schema that pglapse came with. Values are those of the first 10,000
-- rows and of the statistics; a column with more than 30 is no status. A table that the engine's owner may not read, or only
-- by running what somebody else wrote, is not looked at, and that is said.

create or replace function lapse.doctor_statuses(p_now timestamptz)
    returns table (level text, message text, command text)
    language plpgsql
    volatile  -- it locks
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_column record;
    v_values text[];
    v_new    text[];
    v_seen   integer := 0;
    v_unseen text[] := '{}';
begin
    for v_column in
        with targets as (
            select to_regclass(lapse.quoted_name(p.target_table)) as relation, min(p.name) as policy,
                   string_agg(p.predicate, ' ') as predicates,
                   string_agg(concat_ws(' ', p.predicate, p.description, f.prosrc), ' ') as said
              from lapse.policy as p
              left join pg_proc as f on f.oid = to_regprocedure(
                   lapse.quoted_name(p.step) || '(integer, timestamp with time zone, timestamp with time zone)')
             where p.target_table is not null
             group by 1
        )
        select t.policy, format('%I.%I', n.nspname, c.relname) as name, n.nspname as nsp, c.relname as rel, a.attname as att,
               concat_ws(' ', t.said,
                   (select string_agg(f.prosrc, ' ') from lapse.own_triggers() as o join pg_proc as f on f.oid = o.function
                     where o.relation = t.relation),
                   (select string_agg(f.prosrc, ' ') from pg_proc as f
                     where f.pronamespace = c.relnamespace and position(c.relname in f.prosrc) > 0
                       and obj_description(c.relnamespace, 'pg_namespace') ~ '\mpglapse\M')) as said
          from targets as t
          join pg_class as c on c.oid = t.relation
          join pg_namespace as n on n.oid = c.relnamespace
          join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
          join pg_type as y on y.oid = a.atttypid
         where (y.typtype = 'e' or y.oid in ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype))
           and c.relkind in ('r', 'p')
           and t.predicates ~ ('\m' || regexp_replace(a.attname, '([^[:alnum:]_])', '\\\1', 'g') || '\M')
         order by 2, a.attnum
    loop
        -- Its owner may put a view in its place, whose functions would run with our rights. What is locked stays what it is.
        begin
            execute format('lock table %s in access share mode', v_column.name);
        exception
            when insufficient_privilege then
                v_unseen := v_unseen || v_column.name;
                continue;
        end;
        continue when not exists (select from pg_class as c where c.oid = to_regclass(v_column.name) and c.relkind in ('r', 'p'));
        if not lapse.may_look(to_regclass(v_column.name)) then
            v_unseen := v_unseen || v_column.name;
            continue;
        end if;
        v_seen := v_seen + 1;
        execute format('select array(select distinct v.value from (select t.%I::text as value from %s as t limit 10000) as v '
                       'where v.value is not null limit 31)', v_column.att, v_column.name)
           into v_values;
        v_values := array(select unnest(v_values)
                          union
                          select unnest(s.most_common_vals::text::text[]) from pg_stats as s
                           where s.schemaname = v_column.nsp and s.tablename = v_column.rel and s.attname = v_column.att);
        v_new := array(select v.value from unnest(v_values) as v (value)
                        where position(quote_literal(v.value) in v_column.said) = 0 order by v.value);
        if cardinality(v_values) <= 30 and v_new <> '{}' then
            return query
            select 'warn',
                   format('%s has rows whose %s is %s: no policy and no rule names that, so they never lapse', v_column.name, v_column.att,
                          (select string_agg(quote_literal(n.value), ', ') from unnest(v_new) as n (value))),
                   format('select lapse.alter_policy(%L, p_description => %L); -- if they are to stay; else widen its p_predicate or make a policy for them',
                          p.name, concat_ws(' ', p.description, format('Rows whose %s is %s stay.', v_column.att,
                                  (select string_agg(quote_literal(n.value), ', ') from unnest(v_new) as n (value)))))
              from lapse.policy as p
             where p.name = v_column.policy;
        end if;
    end loop;
    return query
    select 'ok',
           concat(format('%s status columns of policies'' targets: each value is named by a policy or a rule', v_seen),
                  (select format('; not looked at, since their rows are not the engine''s to read: %s',
                                 string_agg(distinct u.name, ', '))
                     from unnest(v_unseen) as u (name)
                   having count(*) > 0)),
           null::text;
end;
$$;

comment on function lapse.doctor_statuses(timestamptz) is
    'Check of lapse.doctor: states of rows that no policy and no rule of ours names.';
