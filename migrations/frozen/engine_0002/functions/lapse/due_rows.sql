-- lapse.due_rows: the rows of a policy that are due, locked if wanted.
--
-- In: the policy, from when (inclusive), the cutoff (inclusive), how many at most, and whether to lock
-- them; what others have locked is skipped then. Out: keys as text and due times, oldest first; nothing for
-- a policy without a target. Raises whatever the statement raises: a table that is gone, say. Keys are spelt
-- as the caller's settings spell them, which must be those of lapse.run_batch.

create or replace function lapse.due_rows(
    p_policy lapse.policy,
    p_after  timestamptz,
    p_cutoff timestamptz,
    p_limit  integer,
    p_lock   boolean default false
)
    returns setof lapse.due_row
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    if p_policy.action is not null then
        return query execute format('select t.key, t.due from %s($4, $1, $2, $3, null::regclass, null::text[]) as t',
                                    lapse.checked_due_function(p_policy))
               using p_after, p_cutoff, p_limit, case when p_lock then 'lock' else 'look' end;
    elsif p_policy.target_table is not null then
        return query execute lapse.due_statement(p_policy) || case when p_lock then ' for update of t skip locked' else '' end
               using p_after, p_cutoff, p_limit;
    end if;
end;
$$;

comment on function lapse.due_rows(lapse.policy, timestamptz, timestamptz, integer, boolean) is
    'The due rows of a policy, oldest first; locked, others'' locks skipped, if p_lock is set.';
