-- lapse.preview_facts: what the engine itself knows of a policy, for lapse.preview.
--
-- In: its name. Out: one object: the policy, the numbers of its table and step, how it stands, how many rows are set aside or held, the tables
-- whose files are attached, and the pace of its last runs. No row of the target is looked at. Raises LP002 for an unknown policy. The pace is that of the last ten
-- runs in the history that changed rows and did not fail: rows a batch, and rows a second of their whole time.

create or replace function lapse.preview_facts(p_policy text)
    returns jsonb
    language plpgsql
    stable
    security definer  -- who may preview needs no right on the engine's tables
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_facts jsonb;
begin
    select jsonb_build_object(
               'policy', to_jsonb(p),
               'relation', to_regclass(lapse.quoted_name(p.target_table))::oid,
               'function', to_regprocedure(lapse.quoted_name(p.step)
                                           || '(integer, timestamp with time zone, timestamp with time zone)')::oid,
               'enabled', p.enabled,
               'schedule', lapse.schedule_text(p.every, p.at_time, p.time_zone),
               'next_run_at', s.next_run_at,
               'last_status', s.last_status,
               'batch_limit', least(s.batch_limit, p.batch_size),
               'max_runtime', extract(epoch from p.max_runtime),
               'braked', s.braked_at is not null,
               'released', coalesce(s.released_rows, 0),
               'halted', lapse.halt_reason(),
               'attachments', (select coalesce(jsonb_agg(to_jsonb(a)), '[]') from lapse.attachment as a),
               'blocked', (select count(*) from lapse.blocked_row as b where b.policy = p.name and b.hold_key is null),
               'held', (select count(*) from lapse.blocked_row as b where b.policy = p.name and b.hold_key is not null),
               'pace', (select jsonb_build_object(
                                   'runs', count(*), 'rows', sum(l.handled),
                                   'per_batch', round(sum(l.handled)::numeric / nullif(sum(l.batches), 0), 2),
                                   'per_second', round(sum(l.handled)
                                                       / greatest(extract(epoch from sum(l.finished_at - l.started_at)),
                                                                  0.001), 2))
                          from (select r.handled, r.batches, r.started_at, r.finished_at
                                  from lapse.run_log as r
                                 where r.policy = p.name and r.status = 'ok' and r.handled > 0 and r.batches > 0
                                 order by r.finished_at desc
                                 limit 10) as l
                        having count(*) > 0))
      into v_facts
      from lapse.policy as p
      join lapse.policy_state as s on s.policy = p.name
     where p.name = p_policy;
    if v_facts is null then
        raise exception using
            errcode = 'LP002',
            message = format('there is no policy %s', coalesce(p_policy, 'NULL')),
            hint    = 'See lapse.policy_status for the names.';
    end if;
    return v_facts;
end;
$$;

comment on function lapse.preview_facts(text) is
    'Internal: what the engine knows of a policy without looking at its table, as one object.';
