-- lapse.cancel_file: take one file out of the queue. The rules are those of lapse.cancel_files.
--
-- In: where the file is. Out: true when it is out of the queue (or never was in it),
-- false, with a warning, when a worker already holds it. LP001 without storage or path.

create or replace function lapse.cancel_file(p_storage text, p_path text)
    returns boolean
    language plpgsql
    volatile
    security definer  -- an application needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
as $$
begin
    if p_storage is null or p_path is null then
        raise exception 'a file has a storage and a path'
            using errcode = 'LP001', hint = 'For example: select lapse.cancel_file(''public'', ''tasks/1/a.png'').';
    end if;

    return not exists (select from lapse.cancel_files(array[p_storage], array[p_path]));
end;
$$;

comment on function lapse.cancel_file(text, text) is
    'Take one file out of the queue; false, with a warning, when a worker already holds it.';
