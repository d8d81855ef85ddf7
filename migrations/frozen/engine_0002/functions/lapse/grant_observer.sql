-- lapse.grant_observer: what a role needs to look, as monitoring and `pglapse status` do.
--
-- In: the role. Errors as of lapse.grant_routines. It may read the engine's views, whatever
-- they are, call what they call, and ask how policies and their tables are doing. It can change nothing,
-- and sees no row of anybody's table.

create or replace function lapse.grant_observer(p_role name)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_view regclass;
begin
    perform lapse.grant_routines(p_role, array[
        'api_version', 'backlog', 'halt_reason', 'hidden_rows', 'index_proof', 'schedule_text', 'unindexed_children']);

    for v_view in
        select c.oid::regclass from pg_class as c where c.relnamespace = 'lapse'::regnamespace and c.relkind = 'v'
    loop
        execute format('grant select on %s to %I', v_view, p_role);
    end loop;
end;
$$;

comment on function lapse.grant_observer(name) is
    'Let a role read the engine''s views.';
