-- lapse.release_brake: somebody has looked, and what the brake holds up may go.
--
-- In: a braked policy; the most rows that may be due now, NULL for any number. Out: how many rows are released, of
-- how many that the table had when it was braked, and the oldest due time. So many rows are let through
-- until a run has come to its end; a later jump beyond that brakes again. The next tick begins. A policy that is
-- not braked has nothing to release: 0, and a NOTICE. Raises LP002 for an unknown policy, LP015 where
-- more than p_most are due, LP001 for a negative p_most; then nothing is released. Waits for a batch in progress. Runs with its
-- caller's rights: the engine's owner.

create or replace function lapse.release_brake(
    p_name text,
    p_most bigint default null
)
    returns table (released bigint, of_rows bigint, oldest_due timestamptz)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set row_security = off
as $$
declare
    v_state  lapse.policy_state;
    v_policy lapse.policy;
begin
    if p_most < 0 then
        raise exception '% rows can''t be the most that may go', p_most
            using errcode = 'LP001', hint = 'Give the number that was shown, or leave it out.';
    end if;

    select s.* into v_state from lapse.policy_state as s where s.policy = p_name for update;
    if not found then
        raise exception using
            errcode = 'LP002',
            message = format('there is no policy %s', coalesce(p_name, 'NULL')),
            hint    = 'See lapse.policy_status for the names.';
    end if;

    if v_state.braked_at is null then
        raise notice 'policy % is not braked: there is nothing to release', p_name;
        released := 0;
        return next;
        return;
    end if;

    select p.* into v_policy from lapse.policy as p where p.name = p_name;
    execute 'select count(*), min(q.due) filter (where isfinite(q.due)) from (' || lapse.due_query(v_policy) || ') as q'
       into released, oldest_due
      using '-infinity'::timestamptz, clock_timestamp(), 2147483647;

    if released > p_most then
        raise exception using
            errcode = 'LP015',
            message = format('%s rows of policy %s are due by now, more than %s', released, p_name, p_most),
            hint    = 'Look again: more has become due since. Nothing was released.';
    end if;

    of_rows := v_state.braked_of;
    update lapse.policy_state as s
       set braked_at     = null,
           braked_rows   = null,
           braked_of     = null,
           released_rows = release_brake.released,
           next_run_at   = least(s.next_run_at, clock_timestamp())
     where s.policy = p_name;
    return next;
end;
$$;

comment on function lapse.release_brake(text, bigint) is
    'Let through what a braked policy holds up, once; answers how many rows that are.';
