-- lapse.due_keys: which rows of a policy are due, by its own declaration.
--
-- In: the policy, the cutoff, how many at most. Out: their keys as text and due
-- times, oldest first; rows set aside are left out. Changes and locks nothing: to
-- look before running, and to test that a step takes these rows and no others.
-- Raises LP002 for an unknown policy and LP001 for one without a target, or a cutoff
-- that is no time.

create or replace function lapse.due_keys(
    p_policy text,
    p_as_of  timestamptz default now(),
    p_limit  integer     default 1000
)
    returns table (key text, due timestamptz)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
    set bytea_output = 'hex'
    set extra_float_digits = 1
as $$
declare
    v_policy lapse.policy;
begin
    select p.* into v_policy from lapse.policy as p where p.name = p_policy;
    if not found then
        raise exception using
            errcode = 'LP002',
            message = format('there is no policy %s', coalesce(p_policy, 'NULL')),
            hint    = 'See lapse.policy_status for the names.';
    end if;
    if v_policy.target_table is null then
        raise exception using
            errcode = 'LP001',
            message = format('policy %s does not say which table it works on', p_policy),
            hint    = 'Declare p_target, p_key_columns and p_due_column with lapse.alter_policy.';
    end if;
    if not isfinite(p_as_of) then
        raise exception using
            errcode = 'LP001',
            message = format('rows can''t be due at %s', p_as_of),
            hint    = 'Give a time: rows that are held are due at no time, but would be at infinity.';
    end if;
    return query execute lapse.due_query(v_policy) using '-infinity'::timestamptz, p_as_of, p_limit;
end;
$$;

comment on function lapse.due_keys(text, timestamptz, integer) is
    'The rows that are due by a policy''s declaration, oldest first; rows set aside are left out.';
