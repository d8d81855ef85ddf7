-- lapse.release_attachment: take out of the queue what rows of an attached table still name.
--
-- In: the attachment's trigger function, while all is still there. Out: how many files. Called by lapse.detach_files:
-- from then on nobody asks the table any more, so what is queued under the name of one of its rows, needed or not, must
-- not go. Files of rows that are gone stay queued. It runs with the engine owner's rights, so whoever logged in must be a
-- member of the table's owner (LP035). Where the table can't be asked, nothing is taken out.

create or replace function lapse.release_attachment(p_function regprocedure)
    returns bigint
    language plpgsql
    volatile
    security definer  -- an owner of tables can't read the queue
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_source   record;
    v_after    bigint := -9223372036854775808;
    v_storages text[];
    v_paths    text[];
    v_count    bigint := 0;
begin
    if not exists (select from pg_proc as p where p.oid = p_function and pg_has_role(session_user, p.proowner, 'MEMBER')) then
        raise exception 'role % does not own what is attached by %', session_user, p_function
            using errcode = 'LP035', hint = 'Log in as the owner of the table.';
    end if;

    select s.known, s.storages
      into v_source
      from lapse.attachment as a
      join lapse.file_source as s on s.name = a.name
     where to_regprocedure(a.function || '()') = p_function;

    if v_source.known is null then
        return 0;
    end if;

    loop
        select array_agg(q.storage), array_agg(q.path), max(q.id)
          into v_storages, v_paths, v_after
          from (select q.id, q.storage, q.path
                  from lapse.file_cleanup_queue as q
                 where q.id > v_after
                 order by q.id
                 limit 10000) as q;
        exit when v_paths is null;

        begin
            execute format('select array_agg(k.storage), array_agg(k.path) from %s($1, $2) as k',
                           lapse.check_file_source_function(v_source.known, 'text[], text[]', 'TABLE(storage text, path text)'))
               into v_storages, v_paths
              using v_storages, v_paths;
        exception when undefined_table or undefined_column or undefined_function or undefined_object then
            return 0;
        end;

        if v_paths is not null then
            perform lapse.cancel_files(v_storages, v_paths);
            v_count := v_count + cardinality(v_paths);
        end if;
    end loop;

    return v_count;
end;
$$;

comment on function lapse.release_attachment(regprocedure) is
    'Internal: take out of the queue what rows of an attached table still name; returns how many files.';
