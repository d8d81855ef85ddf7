-- lapse.listed_files: the files that rows speak of, page by page.
--
-- In: a storage; where the page before ended (source and path; NULL: from the start); how many. Out: sources
-- and paths, never of two sources in one page; no row: that was all. LP013 as of
-- lapse.unknown_files. A path that several rows or sources name may come more than once.

create or replace function lapse.listed_files(
    p_storage text,
    p_source  text    default null,
    p_after   text    default null,
    p_limit   integer default 1000
)
    returns table (source text, path text)
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
    set row_security = off
as $$
declare
    v_source record;
begin
    perform lapse.check_orphan_sources();

    for v_source in
        select s.name, s.listed from lapse.file_source as s
         where p_source is null or s.name >= p_source
         order by s.name
    loop
        return query execute format('select %L::text, l.path from %s($1, $2, $3) as l', v_source.name,
                                    lapse.check_file_source_function(v_source.listed, 'text, text, integer', 'TABLE(path text)'))
            using p_storage, case when v_source.name = p_source then p_after end, p_limit;
        exit when found;
    end loop;
end;
$$;

comment on function lapse.listed_files(text, text, text, integer) is
    'For sweeps: the files of a storage that rows speak of, page by page.';
