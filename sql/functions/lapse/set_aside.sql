-- lapse.set_aside: leave one row out for a while, so that it does not stop the rest.
--
-- In: the policy's state, the row's key and due time, its error. Out: true when
-- the row is new on the list, false when this was another try of it, NULL when the
-- list is full (1,000 rows of a policy: a longer one makes every batch dear) and
-- nothing was done. It stays out 1, 2, 4, ... 24 hours, counted from the later of now
-- and the run's cutoff: counted from now alone, a run with a cutoff in the future
-- would meet it again and again.

create or replace function lapse.set_aside(
    p_state    lapse.policy_state,
    p_key      text,
    p_due      timestamptz,
    p_sqlstate text,
    p_error    text
)
    returns boolean
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    update lapse.blocked_row as b
       set due        = p_due,
           sqlstate   = p_sqlstate,
           error      = p_error,
           attempts   = b.attempts + 1,
           run_id     = p_state.run_id,
           touched_at = v_now,
           retry_at   = case when b.hold_key is not null then 'infinity'
                             else greatest(v_now, p_state.run_as_of) end
                        + least(interval '24 hours', interval '1 hour' * power(2, least(b.attempts, 10)))
     where b.policy = p_state.policy and b.key = p_key;
    if found then
        return false;
    end if;

    if (select count(*)
          from (select from lapse.blocked_row as b where b.policy = p_state.policy and b.hold_key is null limit 1000) as l) = 1000 then
        return null;
    end if;
    insert into lapse.blocked_row (policy, key, due, sqlstate, error, run_id, since, touched_at, retry_at)
    values (p_state.policy, p_key, p_due, p_sqlstate, p_error, p_state.run_id, v_now, v_now,
            greatest(v_now, p_state.run_as_of) + interval '1 hour');
    return true;
end;
$$;

comment on function lapse.set_aside(lapse.policy_state, text, timestamptz, text, text) is
    'Enter a row in lapse.blocked_row: true for a new one, false for one tried again, NULL when the list is full.';
