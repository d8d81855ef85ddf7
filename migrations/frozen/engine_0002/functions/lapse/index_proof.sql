-- lapse.index_proof: does an index take a policy's statement straight to the rows that are due?
--
-- In: a policy. Out: one row. ok: each relation of its target is reached by an index whose condition
-- bounds the due column, nothing is read from end to end, and nothing sorts all that is due. index_name:
-- the index, or the indexes. problem: why it is not so, or can't be told. statement: the lines that mend it,
-- each to be sent by itself, outside a transaction. plan: the plan as people read it. statements: the lines one by
-- one, for programs: a predicate may have line breaks. A policy without a target has nothing to prove: ok is
-- NULL. Raises LP002 for an unknown policy.
--
-- Asked is the planner, and not the catalog, about the exact statement (lapse.due_statement, for update
-- skip locked) under the generic plan, since that is what a step has after five batches, with the settings of a
-- batch and those of the step. Nothing is executed: see lapse.explained. A relation of up to a megabyte a
-- planner rightly reads whole, so it is asked again, about each such one by itself and without that way out;
-- there it is enough that an index could serve. A larger one that is read whole all the same is a finding.
-- What can be planned of the step itself is looked at as well (lapse.step_proof), and plan says whether it was.

create or replace function lapse.index_proof(p_policy text)
    returns table (ok boolean, index_name text, problem text, statement text, plan text, statements text[])
    language plpgsql
    volatile
    security definer  -- who may ask needs no right on the target; nothing of its rows is shown
    set search_path = pg_catalog, pg_temp
    set jit = off
as $$
declare
    c_forced   constant text[] := '{enable_seqscan=off,enable_bitmapscan=off,enable_sort=off,enable_indexscan=on}';
    c_small    constant bigint := 1048576;
    v_policy   lapse.policy;
    v_target   regclass;
    v_step     regprocedure;
    v_owner    name;
    v_settings text[];
    v_first    record;
    v_second   record;
    v_read     record;
    v_forced   record;
    v_own      record;
    v_seen     boolean := false;
    v_indexes  text[] := '{}';
    v_problems text[] := '{}';
    v_missing  regclass[] := '{}';
    v_better   text[] := '{}';
    v_turns    text[] := '{}';
    v_mixed    regclass[] := '{}';
    v_unsorted text[] := '{}';
    v_lines    text[] := '{}';
begin
    select p.* into v_policy from lapse.policy as p where p.name = p_policy;
    if not found then
        raise exception using
            errcode = 'LP002',
            message = format('there is no policy %s', coalesce(p_policy, 'NULL')),
            hint    = 'See lapse.policy_status for the names.';
    end if;
    if v_policy.target_table is null then
        problem := 'its step names no table to work on, so there is nothing to prove';
        return next;
        return;
    end if;

    ok := false;
    v_target := to_regclass(lapse.quoted_name(v_policy.target_table));
    v_step := to_regprocedure(lapse.quoted_name(v_policy.step)
                              || '(integer, timestamp with time zone, timestamp with time zone)');
    if v_target is null or v_step is null then
        problem := format('there is no %s', case when v_target is null then 'table ' || v_policy.target_table
                                                 else 'step ' || v_policy.step end);
        return next;
        return;
    end if;

    select case when s.prosecdef then pg_get_userbyid(s.proowner) else current_user end, b.proconfig || s.proconfig
      into v_owner, v_settings
      from pg_proc as s
      join pg_proc as b on b.oid = 'lapse.run_batch(bigint)'::regprocedure
     where s.oid = v_step;

    select format('row-level security (%s) would hide rows of %s from %s',
                  coalesce(nullif(array_to_string(h.policies, ', '), ''), 'no policy lets any through'), v_target, u.name),
           h.statement, array[h.statement]
      into problem, statement, statements
      from (values (v_owner), (case when v_policy.action is null then current_user end)) as u (name)
     cross join lateral lapse.hidden_rows(v_target, u.name) as h
     limit 1;
    if found then
        return next;
        return;
    end if;

    begin
        v_first := lapse.due_plan(v_policy, v_target, v_settings);
        plan := v_first.lines;

        for v_read in
            select j.relation, j.index_name, j.problem, n.nspname, c.relname, c.reltuples,
                   pg_relation_size(j.relation) as bytes
              from lapse.judged_plan(v_first.plan, v_target, v_policy.due_column) as j
              join pg_class as c on c.oid = j.relation
              join pg_namespace as n on n.oid = c.relnamespace
             order by n.nspname, c.relname
        loop
            v_seen := true;
            if v_read.problem is null then
                v_indexes := v_indexes || v_read.index_name;
                continue;
            end if;

            v_second := lapse.due_plan(v_policy, v_read.relation, v_settings || c_forced);
            select j.index_name, j.problem, j.led
              into v_forced
              from lapse.judged_plan(v_second.plan, v_read.relation, v_policy.due_column) as j
             where j.relation = v_read.relation;

            if v_forced.led and v_forced.problem is not null then
                -- Perhaps for the sake of a child that lacks the index, and is read together with it.
                v_mixed := v_mixed || v_read.relation;
                v_unsorted := v_unsorted || format('%s %s', v_read.relation, v_forced.problem);
            elsif v_forced.problem is not null and exists (
                      select from pg_index as x
                        join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
                       where x.indrelid = v_read.relation and x.indisvalid and x.indcheckxmin
                         and a.attname = v_policy.due_column) then
                -- PostgreSQL lets nobody use it who might still see rows as they were before.
                v_better := v_better || format('%s %s: its new index serves as soon as the transactions that are older than it have ended',
                                               v_read.relation, v_forced.problem);
            elsif v_forced.problem is not null then
                v_missing := v_missing || v_read.relation;
                v_problems := v_problems || concat(
                    v_read.relation, ' ', v_forced.problem,
                    case when v_forced.index_name is null then ': no index serves' end,
                    (select format('; index %I is not valid: its building did not end well', min(i.relname))
                       from pg_index as x
                       join pg_class as i on i.oid = x.indexrelid
                       join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
                      where x.indrelid = v_read.relation and not x.indisvalid and a.attname = v_policy.due_column
                     having count(*) > 0));
            elsif v_read.bytes <= c_small then
                v_indexes := v_indexes || v_forced.index_name;
                if cardinality(v_indexes) = 1 then
                    plan := concat(plan, chr(10), 'Small as it is, a table is best read whole; once it has grown:', chr(10),
                                   v_second.lines);
                end if;
            else
                v_better := v_better || format('%s (%s) %s although index %I serves', v_read.relation,
                                                   pg_size_pretty(v_read.bytes), v_read.problem, v_forced.index_name);
                v_turns := v_turns || case
                    when v_read.reltuples < 0 then format('analyze %I.%I;', v_read.nspname, v_read.relname)
                    else format('alter function %s set %s = off;', v_step,
                                case when v_read.problem like '%bitmap%' then 'enable_bitmapscan'
                                     when v_read.index_name is null     then 'enable_seqscan'
                                     else 'enable_sort' end)
                end;
            end if;
        end loop;

        -- One thing at a time: what one relation lacks, the plan makes up for at the others.
        if v_missing = '{}' then
            v_missing := v_mixed;
            v_problems := v_unsorted;
        end if;
        if v_missing = '{}' then
            v_problems := v_better;
            v_lines := v_turns;
        end if;

        if not v_seen then
            -- A table without partitions: what will its first one come with?
            select array_agg(i.relname)
              into v_indexes
              from pg_index as x
              join pg_class as i on i.oid = x.indexrelid
              join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
             where x.indrelid = v_target and x.indisvalid and a.attname = v_policy.due_column;
            if exists (select from pg_inherits as h where h.inhparent = v_target)
               or not exists (select from pg_class as c where c.oid = v_target and c.relkind = 'p') then
                v_problems := v_problems || format('%s is not read at all: no row can ever meet the predicate', v_target);
            elsif v_indexes is null then
                v_missing := array[v_target];
                v_problems := v_problems || format('%s has no partition yet, and no index for one to come with', v_target);
            end if;
        end if;
        if v_problems = '{}' then
            select o.problem, o.statement, o.remark
              into v_own
              from lapse.step_proof(v_policy, v_target, v_step, v_settings, c_forced) as o;
            v_problems := array_remove(array[v_own.problem], null);
            v_lines := array_remove(array[v_own.statement], null);
            plan := concat_ws(chr(10), plan, v_own.remark);
        end if;
    exception
        when others then
            problem := case when sqlstate = '55P03' then format('%s is locked: try again later', v_target)
                            else format('the statement can''t be planned: %s', sqlerrm) end;
            return next;
            return;
    end;

    ok := cardinality(v_problems) = 0;
    if ok then
        select concat(string_agg(i.name, ', ' order by i.name) filter (where i.place <= 3),
                      case when count(*) > 3 then format(' and %s more', count(*) - 3) end)
          into index_name
          from (select n.name, row_number() over (order by n.name) as place
                  from (select distinct u.name from unnest(v_indexes) as u (name)) as n) as i;
    else
        problem := array_to_string(v_problems[1:3], '; ')
                   || case when cardinality(v_problems) > 3
                           then format('; and %s more partitions', cardinality(v_problems) - 3) else '' end;
        if cardinality(v_missing) > 0 then
            v_lines := array(select s.line from lapse.index_statements(v_policy, v_missing) as s (line));
        end if;
        select array_agg(u.line order by u.place)
          into statements
          from (select n.line, min(n.place) as place
                  from unnest(v_lines) with ordinality as n (line, place)
                 group by n.line) as u;
        statement := array_to_string(statements, chr(10));
    end if;
    return next;
end;
$$;

comment on function lapse.index_proof(text) is
    'Whether an index takes a policy''s exact statement to the rows that are due: which one, or what is wrong and what mends it.';
