-- lapse.step_proof: do the statements of a step itself read no more than they take?
--
-- In: the policy, its table, its step, settings to plan under, and others that leave no way but an index. Out: what is
-- wrong, the line that mends it, and what could be looked at, in words. A step may pick its rows by another
-- statement than the policy declares, and find them again by a key that has no index. What can be planned of a written
-- step is what lapse.step_statement finds in its text; of a generated one, the statement that it ends with. What
-- can't be planned by itself is not proved, and that is no problem: it is said. Judged as in lapse.index_proof.

create or replace function lapse.step_proof(
    p_policy   lapse.policy,
    p_target   regclass,
    p_step     regprocedure,
    p_settings text[],
    p_forced   text[],
    out problem   text,
    out statement text,
    out remark    text
)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    c_small constant bigint := 1048576;
    v_query text := lapse.step_statement(p_step);
    v_plans jsonb[] := '{}';
    v_again jsonb;
    v_read  record;
begin
    if p_policy.action is null and v_query is null then
        remark := 'The statements of its step were not looked at: none was found that could be planned by itself.';
        return;
    end if;

    if p_policy.action is null
       and not exists (select from pg_proc as p join pg_roles as r on r.oid = p.proowner
                        where p.oid = p_step and (r.rolname = current_user or r.rolsuper)) then
        -- To plan is to run some of it, with the rights of the engine.
        remark := 'The statements of its step were not looked at: it is somebody else''s.';
        return;
    end if;

    begin
        for v_number in 1 .. 2 loop
            if p_policy.action is null then
                v_again := (lapse.explained(v_query, 'integer, timestamp with time zone, timestamp with time zone',
                                            '1000, ''infinity'', ''-infinity''',
                                            p_settings || case v_number when 2 then p_forced else '{}' end)).plan;
            else
                execute format('select t.key from %s(''act''::text, null::timestamptz, null::timestamptz, null::integer, '
                               'null::regclass, $1) as t limit 1', lapse.checked_due_function(p_policy))
                   into v_again
                  using p_settings || case v_number when 2 then p_forced else '{}' end;
            end if;
            v_plans := v_plans || v_again;
        end loop;
    exception
        when others then
            remark := format('The statements of its step were not looked at: %s.', sqlerrm);
            return;
    end;
    if not exists (select from lapse.judged_plan(v_plans[1], p_target, p_policy.due_column)) then
        remark := 'The statements of its step were not looked at: what was found of them does not read the table.';
        return;
    end if;

    for v_read in
        select w.relation, w.problem, w.kind, pg_relation_size(w.relation) as bytes,
               exists (select
                         from lapse.judged_plan(v_plans[2], p_target, p_policy.due_column) as b
                        where b.relation = w.relation
                          and (b.locked and b.problem is not null or b.kind = 'Seq Scan')) as lacks
          from lapse.judged_plan(v_plans[1], p_target, p_policy.due_column) as w
         where w.locked and w.problem is not null
            or w.kind = 'Seq Scan'
         order by w.relation::text
    loop
        continue when not v_read.lacks and v_read.bytes <= c_small;
        problem := concat_ws('; ', problem, format('in a statement of step %s, %s %s%s', p_policy.step, v_read.relation,
                                                   v_read.problem, case when v_read.lacks then ', and no index serves' end));
        if not v_read.lacks then
            statement := format('alter function %s set %s = off;', p_step,
                                case v_read.kind when 'Seq Scan'         then 'enable_seqscan'
                                                 when 'Bitmap Heap Scan' then 'enable_bitmapscan'
                                                 else 'enable_sort' end);
        end if;
    end loop;
    remark := 'The step''s own statement was looked at, too.';
end;
$$;

comment on function lapse.step_proof(lapse.policy, regclass, regprocedure, text[], text[]) is
    'Internal: whether a step''s own statements, as far as they can be planned by themselves, are served by indexes.';
