-- lapse.preview_json: all that a policy would do, for programs and for `pglapse preview`.
--
-- In: the policy, and how far to count. Out: one object; lapse.preview says the same in lines. Raises LP002 for
-- an unknown policy and LP001 for a bound out of range. What can't be told (a table that is locked, or that the caller
-- may not read, time that ran out) is named under not_known and is null elsewhere; it is no error. What
-- stands in the way of a run is named under findings, with the line that mends it where there is one.
--
-- Reads only, so it works in a read-only transaction, and it gives back every lock: all of it is a
-- subtransaction that ends by an error of its own. Rows due are counted as lapse.policy_status counts them, for
-- everybody who may see that; the table itself and what refers to it with the caller's rights. Which files a
-- trigger of somebody's own queues is not guessed. No key and no other value of a row is shown.

create or replace function lapse.preview_json(p_policy text, p_cap integer default 100000)
    returns jsonb
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set row_security = off
    set lock_timeout = '1 s'
    set jit = off
as $$
declare
    c_done     constant text := 'LP999';
    v_now      timestamptz := statement_timestamp();
    v_facts    jsonb := lapse.preview_facts(p_policy);
    v_policy   lapse.policy := jsonb_populate_record(null::lapse.policy, v_facts -> 'policy');
    v_target   regclass := (v_facts ->> 'relation')::oid;
    v_timeout  interval := nullif(current_setting('statement_timeout')::interval, interval '0');
    v_document jsonb;
    v_due      jsonb := '{}';
    v_rows     bigint;
    v_least    boolean;
    v_of       bigint;
    v_counted  bigint;
    v_estimate boolean := false;
    v_share    numeric;
    v_deletes  boolean;
    v_children jsonb;
    v_files    jsonb;
    v_index    jsonb;
    v_batches  numeric;
    v_seconds  numeric;
    v_brake    jsonb;
    v_part     text;
    v_horizon  record;
    v_count    bigint;
    v_capped   boolean;
    v_oldest   timestamptz;
    v_observes boolean := has_function_privilege('lapse.backlog(text, integer, timestamp with time zone)', 'execute');
    v_child    record;
    v_findings text[] := '{}';
    v_unknown  text[] := '{}';
begin
    if p_cap is null or p_cap not between 1 and 1000000 then
        raise exception using
            errcode = 'LP001',
            message = format('rows can''t be counted up to %s', coalesce(p_cap::text, 'NULL')),
            hint    = 'Use 1 to 1,000,000; beyond that it says at least.';
    end if;

    v_document := jsonb_build_object(
        'policy', v_policy.name, 'description', v_policy.description, 'at', v_now, 'enabled', v_policy.enabled,
        'schedule', v_facts -> 'schedule', 'next_run_at', v_facts -> 'next_run_at', 'last_status', v_facts -> 'last_status',
        'target', v_policy.target_table, 'step', v_policy.step, 'blocked_rows', v_facts -> 'blocked',
        'held_rows', v_facts -> 'held', 'counted_to', p_cap);
    v_findings := array_remove(array[v_facts ->> 'halted'], null);

    if v_policy.target_table is null then
        v_unknown := array['what is due: the policy names no table (lapse.alter_policy: p_target, p_key_columns, p_due_column)'];
    elsif v_target is null then
        v_unknown := array[format('anything: there is no table %s', v_policy.target_table)];
        v_findings := v_findings || format('there is no table %s', v_policy.target_table);
    end if;

    begin
        if v_target is null then
            raise exception using errcode = c_done;
        end if;

        v_part := 'the index';
        select to_jsonb(i) into v_index from lapse.index_proof(p_policy) as i;
        if (v_index ->> 'ok')::boolean is not true then
            v_findings := v_findings || concat_ws(' Mend: ', v_index ->> 'problem', v_index ->> 'statement');
        end if;

        v_part := 'rows due';
        for v_horizon in
            select h.name, h.later
              from (values ('now', interval '0'), ('1 hour', '1 hour'), ('24 hours', '24 hours'), ('7 days', '7 days'))
                   as h (name, later)
        loop
            -- What is too much to count now is too much in a week, too.
            if v_horizon.name = 'now' or not (v_due -> 'now' ->> 'at_least')::boolean then
                if v_observes then
                    select b.rows, b.capped, b.oldest_due
                      into v_count, v_capped, v_oldest
                      from lapse.backlog(p_policy, p_cap, v_now + v_horizon.later) as b;
                else
                    -- The owner of a declared policy's table may ask for himself.
                    begin
                        execute 'select least(count(*), $4), count(*) > $4, min(q.due) filter (where isfinite(q.due)) from ('
                                || lapse.due_query(v_policy) || ') as q'
                           into v_count, v_capped, v_oldest
                          using '-infinity'::timestamptz, v_now + v_horizon.later, p_cap + 1, p_cap::bigint;
                    exception
                        when others then
                            v_count := null;
                    end;
                end if;
                exit when v_count is null;
            end if;
            if v_horizon.name = 'now' then
                v_rows := v_count;
                v_least := v_capped;
                v_document := v_document || jsonb_build_object('oldest_due', v_oldest);
            end if;
            v_due := v_due || jsonb_build_object(
                v_horizon.name, jsonb_build_object('rows', v_count, 'at_least', v_capped));
        end loop;
        if v_rows is null then
            v_unknown := v_unknown || format('rows due: %s can''t be counted now: locked, or closed to the engine', v_target);
        end if;

        v_part := 'the size of the table';
        begin
            v_of := lapse.rows_estimated(v_target);
        exception
            when others then
                null;  -- locked: not even its size is told
        end;
        -- What seems to have room within the bound is counted, since statistics may be old.
        v_estimate := true;
        if v_rows is not null and (v_of is null or v_of < 2 * p_cap) and lapse.foreign_code(v_target) is null then
            begin
                execute format('select count(*) from (select from %s limit $1) as t', v_target) into v_counted using p_cap + 1;
                v_estimate := v_counted > p_cap;
                v_of := case when v_estimate then greatest(v_of, v_counted) else v_counted end;
            exception
                when others then
                    null;  -- no right to read it, say: the estimate is everybody's
            end;
        end if;
        v_share := round(v_rows::numeric / nullif(greatest(v_of, v_rows), 0), 4);

        -- Does it delete? A generated step says so; a written one is read.
        v_deletes := case v_facts -> 'policy' ->> 'action' when 'delete' then true when 'update' then false end;
        if v_facts -> 'policy' ->> 'action' is null then
            select case when s.prosrc ~* ('\mdelete\s+from\s+(only\s+)?' || w.words) then true
                        when s.prosrc ~* ('\mupdate\s+(only\s+)?' || w.words)        then false
                   end
              into v_deletes
              from pg_proc as s
             cross join (select string_agg('"?' || regexp_replace(u.part, '(\W)', '\\\1', 'g') || '"?', '\s*\.\s*'
                                           order by u.place) || '(?!\w)' as words
                           from unnest(parse_ident(v_policy.target_table)) with ordinality as u (part, place)) as w
             where s.oid = (v_facts ->> 'function')::oid;
        end if;

        if v_deletes is not false and v_rows is not null then
            v_part := 'what refers to the table';
            begin
                select coalesce(jsonb_agg(to_jsonb(c) - 'kind') filter (where c.kind = 'rows'), '[]'),
                       coalesce(jsonb_agg(to_jsonb(c) - 'kind' - 'on_delete') filter (where c.kind = 'files'), '[]')
                  into v_children, v_files
                  from lapse.deletion_reach(v_policy, v_now, p_cap, v_facts -> 'attachments') as c;
            exception
                when others then
                    v_unknown := v_unknown || format('what refers to the table: %s', sqlerrm);
            end;
            for v_child in
                select c.*
                  from jsonb_to_recordset(v_children)
                       as c (relation text, name text, on_delete text, rows bigint, at_least boolean, note text)
            loop
                if v_child.note is not null then
                    v_unknown := v_unknown || format('rows of %s (%s): %s', v_child.relation, v_child.name, v_child.note);
                elsif v_child.rows > 0 and v_child.on_delete in ('restrict', 'no action') then
                    v_findings := v_findings || format(
                        '%s%s rows of %s stand in the way (%s, %s): the rows that they refer to will be set aside',
                        case when v_child.at_least then 'at least ' else '' end, v_child.rows, v_child.relation,
                        v_child.name, v_child.on_delete);
                end if;
            end loop;
            v_findings := v_findings || array(
                select format('no index serves %s of %s, which is read whole for each row deleted. Mend: %s',
                              u.constraint_name, u.child, u.statement)
                  from lapse.unindexed_children(v_target) as u
                 where v_deletes);
        end if;

        v_part := 'the files';
        v_unknown := v_unknown || array(
            select format('files: trigger %s of %s queues some, by a rule of its own', t.trigger_name, t.relation)
              from lapse.file_triggers(
                       case when v_deletes is false or v_rows = 0 then array[v_target::oid]
                            else array(select v_target::oid
                                       union
                                       select to_regclass(c.relation)
                                         from jsonb_to_recordset(v_children) as c (relation text, on_delete text, rows bigint)
                                        where c.on_delete = 'cascade' and c.rows > 0) end,
                       case when v_deletes is false then 'update' else 'delete' end) as t
             where v_rows > 0
               and t.function not in (select to_regproc(a.function)
                                        from jsonb_to_recordset(v_facts -> 'attachments') as a (function text)
                                       where to_regproc(a.function) is not null));

        v_part := 'the estimate';
        v_batches := ceil(v_rows / coalesce((v_facts -> 'pace' ->> 'per_batch')::numeric,
                                            (v_facts ->> 'batch_limit')::numeric));
        v_seconds := coalesce(round(v_rows / nullif((v_facts -> 'pace' ->> 'per_second')::numeric, 0), 1), v_batches * 0.2);

        if (v_facts -> 'policy' ->> 'max_fraction')::numeric < 1 then
            -- As lapse.judge_run says; what was counted no further than the bound may leave it open.
            v_brake := jsonb_build_object(
                'max_fraction', v_facts -> 'policy' -> 'max_fraction', 'brake_rows', v_facts -> 'policy' -> 'brake_rows',
                'released', v_facts -> 'released', 'holds', v_facts -> 'braked',
                'would_stop', case when v_rows - (v_facts ->> 'released')::bigint > (v_facts -> 'policy' ->> 'brake_rows')::bigint
                                   then true when not v_least then false end
                              and ((v_facts ->> 'braked')::boolean
                                   or case when v_rows - (v_facts ->> 'released')::bigint
                                                > (v_facts -> 'policy' ->> 'max_fraction')::numeric * v_of
                                           then true when not v_least and v_of is not null then false end));
            if (v_brake ->> 'would_stop')::boolean then
                v_findings := v_findings || format(
                    'the brake %s: %s%s rows are due, more than %s and more than %s %% of the table. Let them go: select lapse.release_brake(%L);',
                    case when (v_facts ->> 'braked')::boolean then 'holds it' else 'would stop it' end,
                    case when v_least then 'at least ' else '' end, v_rows, v_brake ->> 'brake_rows',
                    round((v_brake ->> 'max_fraction')::numeric * 100, 2), v_policy.name);
            elsif v_brake ->> 'would_stop' is null then
                v_unknown := v_unknown || 'whether the brake would stop it: more rows are due than were counted'::text;
            end if;
        end if;

        v_part := null;
        raise exception using errcode = c_done;
    exception
        when query_canceled or assert_failure or others then
            if sqlstate = '57014' and clock_timestamp() - statement_timestamp() >= v_timeout * 0.95 then
                v_unknown := v_unknown || format('%s, and what comes after it: statement_timeout (%s) struck', v_part, v_timeout);
            elsif sqlstate <> c_done then
                raise;
            end if;
    end;

    return v_document || jsonb_build_object(
        'due', v_due,
        'table', jsonb_build_object('rows', v_of, 'estimated', v_estimate),
        'share', v_share,
        'deletes', v_deletes,
        'children', v_children,
        'files', v_files,
        'index', v_index,
        'estimate', case when v_rows is not null
                         then jsonb_build_object(
                             'batches', v_batches, 'seconds', v_seconds, 'at_least', v_least,
                             'runs', greatest(ceil(v_seconds / (v_facts ->> 'max_runtime')::numeric), 1),
                             'basis', case
                                 when v_facts -> 'pace' ->> 'runs' is null
                                 then format('no run that changed rows is on record; 200 ms for a batch of %s',
                                             v_facts ->> 'batch_limit')
                                 else format('the last runs on record (%s): %s rows a second, %s a batch',
                                             v_facts -> 'pace' ->> 'runs', v_facts -> 'pace' ->> 'per_second',
                                             v_facts -> 'pace' ->> 'per_batch')
                             end) end,
        'brake', v_brake,
        'findings', to_jsonb(v_findings),
        'not_known', to_jsonb(v_unknown));
end;
$$;

comment on function lapse.preview_json(text, integer) is
    'All that a policy would do now and in the next days, what stands in its way, and what is not known; reads only.';
