-- lapse.tell_removed: tell every file source that these files are gone.
--
-- In: storages, paths, and when the worker took each file, side by side: what was
-- written under that name later is another file. Out: those that a source could not
-- record yet, since their rows are locked, with a note. A source that fails has recorded nothing:
-- all are returned, with its error, and a warning. Telling twice does no harm.

create or replace function lapse.tell_removed(p_storages text[], p_paths text[], p_claimed_at timestamptz[])
    returns table (storage text, path text, note text)
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
        select s.name, s.removed from lapse.file_source as s where s.removed is not null order by s.name
    loop
        begin
            return query execute format(
                'select r.storage, r.path, %L from %s($1, $2, $3) as r',
                'rows of file source ' || v_source.name || ' are locked',
                lapse.check_file_source_function(v_source.removed, 'text[], text[], timestamp with time zone[]',
                                                 'TABLE(storage text, path text)'))
                using p_storages, p_paths, p_claimed_at;
        exception when others then
            raise warning 'file source % could not be told of removed files: % (%)', v_source.name, sqlerrm, sqlstate;
            return query
            select f.storage, f.path, format('file source %s failed: %s', v_source.name, sqlerrm)
              from unnest(p_storages, p_paths) as f (storage, path);
        end;
    end loop;
end;
$$;

comment on function lapse.tell_removed(text[], text[], timestamptz[]) is
    'Internal: tell all file sources that files are gone; returns those that they could not record yet.';
