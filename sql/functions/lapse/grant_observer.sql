-- lapse.grant_observer: what a role needs to look, as monitoring and `pglapse status` do.
--
-- In: the role. Errors as of lapse.grant_routines. It may read the engine's views, whatever
-- they are, call what they call, and ask how policies and their tables are doing. It can change nothing,
-- and sees no row of anybody's table. lapse.doctor looks at most things with the owner's rights, and at
-- some with the caller's, who may see more; lapse.preview reads tables with the caller's alone.

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
        'api_version', 'backlog', 'halt_reason', 'hidden_rows', 'index_proof', 'schedule_text', 'unindexed_children',
        'doctor', 'doctor_checks', 'doctor_as_owner', 'doctor_span', 'doctor_pg_cron', 'doctor_cron_mode', 'doctor_snapshots',
        'cron_setting', 'cron_home', 'cron_command', 'cron_knows_seconds', 'recorded_cron_jobs',
        'preview', 'preview_json', 'preview_facts', 'deletion_reach', 'file_triggers', 'quoted_name', 'rows_estimated', 'foreign_code',
        'equality', 'due_query', 'due_statement', 'due_function', 'checked_due_function', 'due_shift', 'generated_name']);

    for v_view in
        select c.oid::regclass from pg_class as c where c.relnamespace = 'lapse'::regnamespace and c.relkind = 'v'
    loop
        execute format('grant select on %s to %I', v_view, p_role);
    end loop;
end;
$$;

comment on function lapse.grant_observer(name) is
    'Let a role read the engine''s views.';
