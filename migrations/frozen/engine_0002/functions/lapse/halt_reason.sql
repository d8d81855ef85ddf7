-- lapse.halt_reason: why nothing may run or be deleted in this database; NULL when all is well.
--
-- Out: one sentence. A copy of a database carries its policies and its file queue along, and would
-- expire rows and delete the original's files; it is known by another name or another server's
-- system identifier than lapse.identity has, or by having been disowned. So is a database that was renamed, and a
-- server that pg_upgrade made: from inside these look the same, and lapse.adopt_database ends it.
-- A physical copy (base backup, snapshot) that keeps its name can't be told from the original.
-- Cheap, a small file and a row to read: asked before every batch and every claim.

create or replace function lapse.halt_reason()
    returns text
    language plpgsql
    stable
    security definer  -- whoever may look needs no right on the table
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_known  lapse.identity;
    v_system bigint := (select c.system_identifier from pg_control_system() as c);
begin
    select i.* into v_known from lapse.identity as i;

    return case
        when v_known.only_row is null then
            format('database %s is not adopted: lapse.identity has no row', current_database())
        when v_known.disowned_at is not null then
            format('database %s is not adopted: %s disowned it at %s', current_database(), v_known.disowned_by,
                   date_trunc('second', v_known.disowned_at))
        when v_known.system_identifier <> v_system then
            format('database %s is not adopted: its pglapse belongs to database %s of another server (system %s, and '
                   'this is %s)', current_database(), v_known.database_name, v_known.system_identifier, v_system)
        when v_known.database_name <> current_database() then
            format('database %s is not adopted: its pglapse belongs to database %s', current_database(),
                   v_known.database_name)
    end;
end;
$$;

comment on function lapse.halt_reason() is
    'Why no policy runs and no file is deleted in this database, a copy or one not adopted; NULL when all is well.';
