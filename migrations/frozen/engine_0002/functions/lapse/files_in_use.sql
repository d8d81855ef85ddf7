-- lapse.files_in_use: ask every file source which of these files are still needed.
--
-- In: storages and paths, pairwise. Out: those still needed, and until when (infinity:
-- for good), once for each source that says so. A source that fails can't be taken for a
-- no: all files are returned as needed for half a minute, with the error, and a warning.

create or replace function lapse.files_in_use(p_storages text[], p_paths text[])
    returns table (storage text, path text, until timestamptz, source text, error text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = on  -- lapse.exchange_files has it off, and a source is planned as anywhere
as $$
#variable_conflict use_column
declare
    v_source record;
begin
    for v_source in
        select s.name, s.in_use from lapse.file_source as s order by s.name
    loop
        begin
            return query execute format(
                'select r.storage, r.path, coalesce(max(coalesce(r.until, ''infinity'')), ''infinity''), %L, null '
                'from %s($1, $2) as r where r.storage is not null and r.path is not null group by 1, 2',
                v_source.name, v_source.in_use)
                using p_storages, p_paths;
        exception when others then
            raise warning 'file source % could not be asked, so nothing is deleted: % (%)',
                v_source.name, sqlerrm, sqlstate;
            return query
            select f.storage, f.path, clock_timestamp() + interval '30 s', v_source.name,
                   format('file source %s failed: %s', v_source.name, sqlerrm)
              from unnest(p_storages, p_paths) as f (storage, path);
        end;
    end loop;
end;
$$;

comment on function lapse.files_in_use(text[], text[]) is
    'Internal: ask all file sources which files are still needed, and until when; a source that fails counts as needed.';
