-- lapse.unknown_files: which of these files no row of the database knows.
--
-- In: a storage and paths. Out: those that are neither queued, dead rows included, nor known to any file
-- source. LP013 when that can't be told: no file source is registered, or one that can't say what it
-- knows. An error of a source is passed on: a file is never called unknown because nobody answered.
-- Volatile, so that it sees what has committed by now.

create or replace function lapse.unknown_files(p_storage text, p_paths text[])
    returns table (path text)
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
    set row_security = off
as $$
#variable_conflict use_column
declare
    v_storages text[] := array_fill(p_storage, array[coalesce(cardinality(p_paths), 0)]);
    v_known    text[] := '{}';
    v_found    text[];
    v_source   record;
begin
    perform lapse.check_orphan_sources();

    for v_source in
        select s.name, s.known from lapse.file_source as s order by s.name
    loop
        execute format('select array_agg(k.path) from %s($1, $2) as k where k.storage = $3',
                       lapse.check_file_source_function(v_source.known, 'text[], text[]', 'TABLE(storage text, path text)'))
            into v_found using v_storages, p_paths, p_storage;
        v_known := v_known || v_found;
    end loop;

    return query
    select p.path
      from unnest(p_paths) as p (path)
     where not exists (select from lapse.file_cleanup_queue as q
                        where q.storage = p_storage and lapse.path_digest(q.path) = lapse.path_digest(p.path))
    except
    select k.path from unnest(v_known) as k (path);
end;
$$;

comment on function lapse.unknown_files(text, text[]) is
    'For sweeps: those of the files that no row of the database knows.';
