-- lapse.unregister_file_source: forget a file source. Its files are no longer protected by it.
--
-- In: the name it was registered under. LP002 for an unknown one. Only the engine's owner may.

create or replace function lapse.unregister_file_source(p_name text)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    delete from lapse.file_source as s where s.name = p_name;

    if not found then
        raise exception 'there is no file source %', coalesce(quote_literal(p_name), 'NULL')
            using errcode = 'LP002', hint = 'See: select name from lapse.file_source.';
    end if;
end;
$$;

comment on function lapse.unregister_file_source(text) is
    'Forget a file source: it is asked and told no more.';
