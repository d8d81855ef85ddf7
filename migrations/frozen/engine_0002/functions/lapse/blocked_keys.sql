-- lapse.blocked_keys: the rows that a declared policy's step must leave out.
--
-- In: the policy, the cutoff of the run. Out: the keys of rows that are set aside, not due for another try by
-- then, or held. A generated step runs with the rights of its table's owner, who has none on
-- lapse.blocked_row. So this one has no rights of its own: it reads a view that shows each role what belongs
-- to its own tables, and gives away no key of anybody else's.

create or replace function lapse.blocked_keys(p_policy text, p_cutoff timestamptz)
    returns setof text
    language sql
    stable
    rows 10
    set search_path = pg_catalog, pg_temp
as $$
    select b.key from lapse.own_blocked_row as b where b.policy = p_policy and b.retry_at > p_cutoff
$$;

comment on function lapse.blocked_keys(text, timestamptz) is
    'Keys of rows of one''s own tables that a policy leaves out: set aside or held.';
