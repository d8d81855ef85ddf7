-- lapse.grant_step: what the owner of a table needs for a generated step to run with his rights.
--
-- In: the role. Errors as of lapse.grant_routines. It may call what generated functions call, and see which rows of its
-- own tables are set aside. lapse.create_expiry sees to it; superusers need nothing.

create or replace function lapse.grant_step(p_role name)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    if has_schema_privilege(p_role, 'lapse', 'USAGE')
       and has_table_privilege(p_role, 'lapse.own_blocked_row', 'SELECT')
       and has_function_privilege(p_role, 'lapse.blocked_keys(text, timestamptz)', 'EXECUTE')
       and has_function_privilege(p_role, 'lapse.due_shift(timestamptz, interval, text)', 'EXECUTE')
       and has_function_privilege(p_role, 'lapse.explained(text, text, text, text[])', 'EXECUTE') then
        return;
    end if;
    perform lapse.grant_routines(p_role, array['blocked_keys', 'due_shift', 'explained']);
    execute format('grant select on lapse.own_blocked_row to %I', p_role);
end;
$$;

comment on function lapse.grant_step(name) is
    'Internal: let the steps of a role''s own tables run.';
