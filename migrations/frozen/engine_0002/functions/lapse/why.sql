-- lapse.why: why is this row still there, or why did it go?
--
-- In: a table and a row's key, as for lapse.hold. Out: a line for each policy on the table, the state in a word or two and
-- the whole answer; then what is known of the row's files. Where several things keep a row the first of
-- these is the state, and the answer names them all: held, another state, not due, set aside, locked, not adopted, braked,
-- paused, failing; due, when nothing does. The condition of a declared policy on somebody else's table is
-- not looked at: it would run with the caller's rights. Reads only, waits for nobody, and looks at no more than the latest
-- 100,000 entries of the file queue and of its log. Raises LP016 for a table without a key. Runs with its caller's
-- rights: the engine's owner.

create or replace function lapse.why(p_target regclass, p_key text)
    returns table (policy text, state text, says text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set row_security = off
    set lock_timeout = '100 ms'
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
    set bytea_output = 'hex'
    set extra_float_digits = 1
as $$
#variable_conflict use_column
declare
    v_table  regclass := coalesce(pg_partition_root(p_target), p_target);
    v_now    timestamptz := clock_timestamp();
    v_halted text := lapse.halt_reason();
    v_silent interval := v_now - (select max(t.last_tick_at) from lapse.tick_source as t);
    v_ours   boolean;  -- the table is the engine's owner's, so its conditions may be run
    v_key    text;
    v_found  record;
    v_policy lapse.policy;
    v_state  lapse.policy_state;
    v_row    record;
    v_block  lapse.blocked_row;
    v_hold   lapse.hold;
    v_above  text;
    v_words  text[];
    v_says   text[];
begin
    if num_nulls(p_target, p_key) > 0 then
        raise exception 'which row?'
            using errcode = 'LP001', hint = 'Give its table and key: select * from lapse.why(''market.tasks'', ''17'');';
    end if;

    begin
        select f.* into v_found from lapse.find_row(v_table, p_key, false) as f;
    exception
        when insufficient_privilege then
            state := 'hidden';
            says := format('hidden from role %s, which owns the engine: %s', current_user, sqlerrm);
            return next;
            return;
        when lock_not_available then
            state := 'locked';
            says := format('table %s is locked as a whole%s', v_table,
                           (select format(', by pid %s', string_agg(distinct l.pid::text, ', '))
                              from pg_locks as l
                             where l.relation = v_table and l.granted and l.mode = 'AccessExclusiveLock'));
            return next;
            return;
    end;

    v_key := coalesce(v_found.key, p_key);
    v_ours := exists (select from pg_class as c join pg_namespace as n on n.nspowner = c.relowner
                       where c.oid = v_table and n.nspname = 'lapse');
    select h.* into v_hold from lapse.held_rows(v_table) as h where h.key = v_key;

    if v_found.key is null then
        state := 'no such row';
        says := format('table %s has no row %s', v_table, p_key);
        if v_hold.key is not null then
            says := format('%s; it is still held, since %s by %s: %s', says, date_trunc('second', v_hold.held_at),
                           v_hold.held_by, v_hold.reason);
        end if;
        return next;
    elsif not exists (select from lapse.policies_on(v_table)) then
        state := 'no policy';
        says := format('no policy works on table %s', v_table)
                || coalesce(format('; held since %s by %s: %s', date_trunc('second', v_hold.held_at), v_hold.held_by, v_hold.reason),
                            '');
        return next;
    end if;

    for v_policy in
        select p.* from lapse.policy as p where p.name in (select lapse.policies_on(v_table)) order by p.name
    loop
        exit when v_found.key is null;
        policy := v_policy.name;
        v_words := '{}';
        v_says := '{}';
        select s.* into v_state from lapse.policy_state as s where s.policy = v_policy.name;

        begin
            execute format('select %s as due, %s as meant, t.xmax, t.tableoid, %s as key, '
                           'to_jsonb(t) as columns from %s as t where %s',
                           case when num_nonnulls(v_policy.older_than, v_policy.due_zone) = 0
                                then format('t.%I', v_policy.due_column)
                                when v_policy.due_zone is null
                                then format('timezone(''UTC'', timezone(''UTC'', t.%I) + lapse.due_shift($2, %L, null))',
                                            v_policy.due_column, v_policy.older_than)
                                else format('timezone(''UTC'', t.%I + lapse.due_shift($2, %L, %L))',
                                            v_policy.due_column, v_policy.older_than, v_policy.due_zone) end,
                           case when v_policy.action is null or v_policy.predicate is null or v_ours
                                then format('(%s' || chr(10) || ') is true', coalesce(v_policy.predicate, 'true'))
                                else 'null::boolean' end,
                           lapse.key_expression(v_policy.key_columns, 't'), v_table,
                           lapse.key_condition(v_table, v_found.key_columns, 't'))
               into v_row
              using lapse.key_values(v_found.key, cardinality(v_found.key_columns)), v_now;
        exception
            when others then
                state := 'unknown';
                says := format('can''t be told: %s', sqlerrm);
                return next;
                continue;
        end;
        continue when v_row.key is null;  -- gone meanwhile

        select b.* into v_block from lapse.blocked_row as b where b.policy = v_policy.name and b.key = v_row.key;

        if v_block.hold_key is not null then
            v_words := v_words || 'held'::text;
            v_says := v_says || (
                select format('held since %s by %s: %s', date_trunc('second', h.held_at), h.held_by,
                              regexp_replace(v_block.error, '^held: ', ''))
                  from lapse.hold as h
                 where h.target_table = v_block.hold_table and h.key = v_block.hold_key);
        end if;

        -- What a batch would find out: a held row may have come to hang on this one since.
        v_above := null;
        if v_block.hold_key is null and v_policy.action is distinct from 'update' and exists (select from lapse.hold) then
            begin
                v_above := (select format('row %s of %s would go along with it: %s', d.hold_key, d.hold_table, d.reason)
                              from lapse.derived_holds(v_policy) as d
                             where d.key = v_row.key
                             limit 1);
            exception
                when others then
                    null;  -- it is only that nobody can tell
            end;
        end if;
        if v_above is not null then
            if v_policy.action is not distinct from 'delete' then
                v_words := v_words || 'held'::text;
            end if;
            v_says := v_says || ('held, where the policy deletes it: ' || v_above);
        end if;

        if v_row.meant is null then
            v_says := v_says || format('the policy takes rows where %s, which is not looked at in a table of somebody else''s',
                                       v_policy.predicate);
        elsif not v_row.meant then
            v_words := v_words || 'another state'::text;
            v_says := v_says || format('the policy takes rows where %s, and here %s', v_policy.predicate,
                                       (select string_agg(format('%s is %s', a.attname, coalesce(v_row.columns ->> a.attname::text, 'NULL')),
                                                          ' and ' order by a.attnum)
                                          from pg_attribute as a
                                         where a.attrelid = v_table and a.attnum > 0 and not a.attisdropped
                                           and position(a.attname::text in v_policy.predicate) > 0));
        end if;

        if v_row.due is null then
            v_words := v_words || 'not due'::text;
            v_says := v_says || format('never due: %s is NULL', v_policy.due_column);
        elsif v_row.due > v_now then
            v_words := v_words || 'not due'::text;
            v_says := v_says || format('not due until %s', v_row.due);
        else
            v_says := v_says || format('due since %s', v_row.due);
        end if;

        if v_block.policy is not null and v_block.hold_key is null and v_block.retry_at > v_now then
            v_words := v_words || 'set aside'::text;
            v_says := v_says || format('set aside until %s after %s tries: %s', date_trunc('second', v_block.retry_at),
                                       v_block.attempts, v_block.error);
        end if;

        if exists (select from lapse.lockers(v_row.tableoid, v_row.xmax)) then
            v_words := v_words || 'locked'::text;
            v_says := v_says || (select string_agg(l.says, '; ') from lapse.lockers(v_row.tableoid, v_row.xmax) as l);
        end if;

        if v_halted is not null then
            v_words := v_words || 'not adopted'::text;
            v_says := v_says || (v_halted || ': select lapse.adopt_database();');
        end if;

        if v_state.braked_at is not null then
            v_words := v_words || 'braked'::text;
            v_says := v_says || format('the policy is braked since %s, with %s of %s rows due: select lapse.release_brake(%L)',
                                       date_trunc('second', v_state.braked_at), v_state.braked_rows, v_state.braked_of,
                                       v_policy.name);
        end if;

        if not v_policy.enabled then
            v_words := v_words || 'paused'::text;
            v_says := v_says || format('the policy is paused: select lapse.resume(%L)', v_policy.name);
        end if;

        if v_state.consecutive_failures > 0 then
            v_words := v_words || 'failing'::text;
            v_says := v_says || format('the policy failed %s times in a row, the last time with: %s',
                                       v_state.consecutive_failures, v_state.last_error);
        end if;

        if v_words <@ array['locked', 'failing'] then
            v_says := v_says || case
                when v_state.run_id is not null        then format('a run is under way since %s',
                                                                   date_trunc('second', v_state.run_started_at))
                when v_state.next_run_at > v_now       then format('will be taken by the run at %s',
                                                                   date_trunc('second', v_state.next_run_at))
                when v_silent < interval '2 minutes'   then 'will be taken by the next tick'
                else 'would be taken by the next tick, but nobody ticks: '
                     || coalesce('the last one was at ' || date_trunc('second', v_now - v_silent), 'there has been none')
            end;
        end if;

        state := coalesce(v_words[1], 'due');
        says := array_to_string(v_says, '; ');
        return next;
    end loop;

    policy := null;
    for state, says in
        select f.state, f.says from lapse.files_of_row(v_table, v_key) as f
    loop
        return next;
    end loop;
end;
$$;

comment on function lapse.why(regclass, text) is
    'Why a row is still there, policy by policy: not due, held, locked, set aside, paused and so on; and what became of its files.';
