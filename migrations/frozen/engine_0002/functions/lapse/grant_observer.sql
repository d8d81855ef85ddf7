-- lapse.grant_observer: what a role needs to look, as monitoring and `pglapse status` do.
--
-- In: the role. Errors as of lapse.grant_routines. It may read the engine's views, whatever
-- they are, and call what they call. It can change nothing.

create or replace function lapse.grant_observer(p_role name)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_view regclass;
begin
    perform lapse.grant_routines(p_role, array['api_version', 'backlog', 'halt_reason', 'schedule_text']);

    for v_view in
        select c.oid::regclass from pg_class as c where c.relnamespace = 'lapse'::regnamespace and c.relkind = 'v'
    loop
        execute format('grant select on %s to %I', v_view, p_role);
    end loop;
end;
$$;

comment on function lapse.grant_observer(name) is
    'Let a role read the engine''s views.';
