-- lapse.checked_due_function: the function that names a declared policy's due rows, if it may be asked.
--
-- In: a declared policy. Out: its name, quoted for dynamic SQL. Raises LP010 when there is none that runs with the rights of
-- its owner: one that its owner has made run with the caller's since would run with the engine's. Looked at each time.
-- Call it with all its arguments, each of its own type: another function of that name, with fewer, is not looked at here.

create or replace function lapse.checked_due_function(p_policy lapse.policy)
    returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text := lapse.due_function(p_policy);
begin
    if not exists (
           select from pg_proc as p
            where p.oid = to_regprocedure(v_name || '(text, timestamp with time zone, timestamp with time zone, integer, '
                                                    'regclass, text[])')
              and (p.prosecdef or p.proowner = (select n.nspowner from pg_namespace as n where n.nspname = 'lapse'))) then
        raise exception 'there is no function % any more that runs with the rights of its owner', v_name
            using errcode = 'LP010',
                  hint = format('Declare policy %s again: lapse.create_expiry(..., p_replace => true).', p_policy.name);
    end if;
    return v_name;
end;
$$;

comment on function lapse.checked_due_function(lapse.policy) is
    'The quoted name of the function that names a declared policy''s due rows; LP010 if it may not be asked.';
