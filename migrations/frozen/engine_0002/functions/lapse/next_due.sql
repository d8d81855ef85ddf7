-- lapse.next_due: which policy lapse.run_due serves next.
--
-- In: who ticks, until when, whether to stay when nothing is due. Out: the run to
-- give a batch to, fresh when it was opened just now (commit first, so that a
-- crash finds it on record); or no run and the seconds to rest before asking
-- again; or neither, when it is time to go. The least recently served goes
-- first, be it a run already open in this session or a policy just come due, so
-- one with a million rows can't starve one with ten. A policy that another session
-- serves is passed over silently; one whose session is gone is recorded lost and
-- begun anew; one whose session is held up elsewhere is taken over as it stands,
-- unless its cutoff is one that somebody chose: that run is theirs, and ends. In a database that was
-- disowned meanwhile it is time to go.

create or replace function lapse.next_due(
    p_source   text,
    p_deadline timestamptz,
    p_stay     boolean,
    out run_id bigint,
    out fresh  boolean,
    out rest   double precision
)
    language plpgsql
    volatile
    security definer  -- whoever may tick needs no right on the tables
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_now    timestamptz := clock_timestamp();
    v_end    timestamptz := least(p_deadline, v_now + lapse.statement_time_left());
    v_name   text;
    v_state  lapse.policy_state;
    v_open   boolean := false;
    v_next   timestamptz;
begin
    if v_now >= v_end or lapse.halt_reason() is not null then
        return;
    end if;

    for v_name in
        select s.policy
          from lapse.policy_state as s
          join lapse.policy as p on p.name = s.policy
         where s.run_pid = pg_backend_pid()
            or (s.next_run_at <= v_now and p.enabled)
         order by s.last_served_at nulls first, s.next_run_at, s.policy
    loop
        -- A lock is held for the whole batch that follows, so only what is taken gets one: a lock on
        -- what another session serves would keep it from its own next batch.
        select s.* into v_state from lapse.policy_state as s where s.policy = v_name;
        continue when v_state.run_pid <> pg_backend_pid() and lapse.run_standing(v_state) = 'busy';
        select s.*
          into v_state
          from lapse.policy_state as s
         where s.policy = v_name
           and (s.run_pid = pg_backend_pid() or s.next_run_at <= v_now)
           for update skip locked;
        if not found then
            v_open := v_open or exists (select from lapse.policy_state as s
                                         where s.policy = v_name and s.run_pid = pg_backend_pid());
            continue;
        end if;

        if v_state.run_pid = pg_backend_pid() then
            run_id := v_state.run_id;
            fresh := false;
            return;
        end if;

        case lapse.run_standing(v_state)
            when 'busy' then
                continue;
            when 'lost' then
                perform lapse.end_run(v_name, 'lost', true, p_message => 'its session went away');
                continue when exists (select from lapse.policy_state as s
                                       where s.policy = v_name and s.next_run_at > clock_timestamp());
                run_id := lapse.open_run(v_name, p_source, null);
            when 'stale' then
                if v_state.run_as_of <> v_state.run_started_at then
                    perform lapse.end_run(v_name, 'stopped', true, p_message => 'its session was held up elsewhere');
                    run_id := lapse.open_run(v_name, p_source, null);
                    fresh := true;
                    return;
                end if;
                run_id := nextval('lapse.run_id_seq');
                perform pg_advisory_lock(1818324339, lapse.run_lock_key(run_id));
                update lapse.blocked_row as b
                   set run_id = next_due.run_id
                 where b.policy = v_name and b.run_id = v_state.run_id;
                update lapse.policy_state as s
                   set run_id         = next_due.run_id,
                       run_source     = p_source,
                       run_pid        = pg_backend_pid(),
                       last_served_at = v_now
                 where s.policy = v_name;
            else
                run_id := lapse.open_run(v_name, p_source, null);
        end case;
        fresh := true;
        return;
    end loop;

    if v_open then
        rest := 0.2;  -- an operator holds the state of a run of ours
    elsif p_stay then
        select min(s.next_run_at)
          into v_next
          from lapse.policy_state as s
          join lapse.policy as p on p.name = s.policy
         where p.enabled;
        rest := least(1.0, greatest(0.05, extract(epoch from least(v_next, v_end) - v_now)));
        if v_now + make_interval(secs => rest) >= v_end then
            rest := null;
        end if;
    end if;
end;
$$;

comment on function lapse.next_due(text, timestamptz, boolean) is
    'The run that lapse.run_due gives its next batch to, or how long to rest, or neither.';
