-- lapse.tell_run: say what a run did, to whoever called it by hand.
--
-- In: the run's number and its policy. Out: nothing but a NOTICE: rows changed, batches,
-- rows set aside, whether work is left. An empty run leaves no entry in the
-- history, and that is what it says then. Raises nothing.

create or replace function lapse.tell_run(p_run_id bigint, p_policy text)
    returns void
    language plpgsql
    stable
    security definer  -- whoever may run a policy needs no right on the tables
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_entry lapse.run_log;
begin
    select l.*
      into v_entry
      from lapse.run_log as l
     where l.policy = p_policy and l.run_id = p_run_id
     order by l.finished_at desc
     limit 1;
    if not found then
        raise notice '%: nothing was due', p_policy;
        return;
    end if;
    raise notice '%', concat(
        format('%s: %s row(s) changed in %s batch(es)', p_policy, v_entry.handled, v_entry.batches),
        case when v_entry.blocked > 0
             then format(', %s set aside (see lapse.blocked_row)', v_entry.blocked) end,
        case when v_entry.more then ', more are due' end,
        case when v_entry.status <> 'ok' then format('; %s: %s', v_entry.status, v_entry.message) end);
end;
$$;

comment on function lapse.tell_run(bigint, text) is
    'A NOTICE that says what a run did; used by lapse.run.';
