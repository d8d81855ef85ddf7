-- lapse.files_in_use: ask every file source which of these files are still needed.
--
-- In: storages and paths, pairwise. Out: those still needed, and until when (infinity:
-- for good), once for each source that says so. A source that fails can't be taken for a
-- no: all its files are returned as needed for half a minute, with the error, and a warning. A source that
-- says of which storages it knows is asked for those alone. What a transaction that has not ended names
-- (lapse.announce_files) is needed for a second, or for ten where it marks whole storages: a long load must not have
-- its queue written over and over. That is looked at first, since by the time that its mark is gone, its rows are
-- there for all to see. Each function is checked again: its owner may have had it run with the
-- caller's rights since, and that would be the engine's.

create or replace function lapse.files_in_use(p_storages text[], p_paths text[])
    returns table (storage text, path text, until timestamptz, source text, error text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = on  -- lapse.exchange_files has it off, and a source is planned as anywhere
as $$
#variable_conflict use_column
declare
    v_source   record;
    v_storages text[];
    v_paths    text[];
    v_error    text;
    v_marks    bigint[];
begin
    v_marks := array(select (l.classid::bigint << 32) | l.objid::bigint
                       from pg_locks as l
                      where l.locktype = 'advisory' and l.objsubid = 1 and l.mode = 'ShareLock'
                        and l.database = (select d.oid from pg_database as d where d.datname = current_database()));
    return query
    select f.storage, f.path,
           clock_timestamp() + case when lapse.file_lock_key(f.storage, null) = any (v_marks) then interval '10 s'
                                    else interval '1 s' end,
           'announced', 'a transaction that has not ended names it'
      from unnest(p_storages, p_paths) as f (storage, path)
     where array[lapse.file_lock_key(f.storage, f.path), lapse.file_lock_key(f.storage, null)] && v_marks;

    for v_source in
        select s.name, s.in_use, s.storages, a.target_table
          from lapse.file_source as s
          left join lapse.attachment as a on a.name = s.name
         order by s.name
    loop
        v_storages := p_storages;
        v_paths := p_paths;
        if v_source.storages is not null then
            select array_agg(f.storage), array_agg(f.path)
              into v_storages, v_paths
              from unnest(p_storages, p_paths) as f (storage, path)
             where f.storage = any (v_source.storages);
            continue when v_paths is null;
        end if;

        begin
            return query execute format(
                'select r.storage, r.path, coalesce(max(coalesce(r.until, ''infinity'')), ''infinity''), %L, null '
                'from %s($1, $2) as r where r.storage is not null and r.path is not null group by 1, 2',
                v_source.name,
                lapse.check_file_source_function(v_source.in_use, 'text[], text[]',
                                                 'TABLE(storage text, path text, until timestamp with time zone)'))
                using v_storages, v_paths;
        exception when others then
            v_error := format('file source %s failed: %s', v_source.name, sqlerrm);
            -- Its table, a column of it, or its functions are not what they were.
            if v_source.target_table is not null and left(sqlstate, 2) in ('42', '3F', 'LP') and sqlstate <> 'LP037' then
                v_error := format('%s; if table %s was dropped: select lapse.detach_dropped(); if it was renamed or '
                                  'altered, call lapse.attach_files again with p_replace => true',
                                  v_error, v_source.target_table);
            end if;
            raise warning 'file source % could not be asked, so nothing of it is deleted: % (%)',
                v_source.name, sqlerrm, sqlstate using detail = v_error;
            return query
            select f.storage, f.path, clock_timestamp() + interval '30 s', v_source.name, v_error
              from unnest(v_storages, v_paths) as f (storage, path);
        end;
    end loop;
end;
$$;

comment on function lapse.files_in_use(text[], text[]) is
    'Internal: ask all file sources which files are still needed, and until when; a source that fails counts as needed.';
