-- lapse.check_orphan_sources: can it be told which files the database knows?
--
-- LP013 when not: where no file source is registered every file would look like an orphan, and where one
-- can't say what it knows, its files would.

create or replace function lapse.check_orphan_sources()
    returns void
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
begin
    if not exists (select from lapse.file_source) then
        raise exception 'no file source is registered, so every file would look like an orphan'
            using errcode = 'LP013', hint = 'Register the tables that know of files: see lapse.register_file_source.';
    end if;

    select s.name into v_name from lapse.file_source as s where s.known is null or s.listed is null order by s.name limit 1;

    if found then
        raise exception 'file source % can''t say which files it knows, so its files would look like orphans', v_name
            using errcode = 'LP013',
                  hint = 'Register it anew with its functions known and listed: see lapse.register_file_source.';
    end if;
end;
$$;

comment on function lapse.check_orphan_sources() is
    'Internal: raise LP013 unless every file source can say which files it knows.';
