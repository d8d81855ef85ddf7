-- lapse.doctor_foreign_keys: is somebody who needs a file never asked?
--
-- In: the time. Out: findings for lapse.doctor. Before a file is deleted the registered sources
-- are asked whether a row still needs it. A table that refers to one with files, and that no
-- source's function, policy or trigger speaks of, may need its files and is not
-- asked. Where that is meant, a comment on the constraint that speaks of pglapse says so.

create or replace function lapse.doctor_foreign_keys(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with asked as materialized (
        select p.prosrc as source
          from lapse.file_source as s
         cross join lateral unnest(array[s.in_use, s.removed, s.known, s.listed]) as f (name)
          join pg_proc as p on p.proname = (parse_ident(f.name))[2]
                           and p.pronamespace = to_regnamespace(quote_ident((parse_ident(f.name))[1]))
        union
        select p.prosrc from lapse.own_triggers() as t join pg_proc as p on p.oid = t.function
        union
        select p.prosrc
          from lapse.policy as y
          join pg_proc as p on p.proname = (parse_ident(y.step))[2]
                           and p.pronamespace = to_regnamespace(quote_ident((parse_ident(y.step))[1]))
    )
    select 'warn',
           format('%I.%I refers to %s, whose rows have files (%s), and no file source asks it whether it needs them', n.nspname, c.relname,
                  f.name, k.conname),
           format('comment on constraint %I on %I.%I is %L; -- if that is meant; else teach a source: select lapse.register_file_source(...)',
                  k.conname, n.nspname, c.relname,
                  concat_ws(' ', obj_description(k.oid, 'pg_constraint'), 'pglapse: rows here need no files of ' || f.name || '.'))
      from lapse.file_tables() as f
      join pg_constraint as k on k.confrelid = f.relation and k.contype = 'f' and k.conparentid = 0
      join pg_class as c on c.oid = k.conrelid
      join pg_namespace as n on n.oid = c.relnamespace
     where coalesce(obj_description(k.oid, 'pg_constraint'), '') !~ '\mpglapse\M'
       and not exists (select from asked as a
                        where a.source ~ ('\m' || regexp_replace(c.relname, '([^[:alnum:]_])', '\\\1', 'g') || '\M'))
    union all
    select 'ok', format('%s tables speak of files (%s sources are asked), and no other table refers to them unasked',
                        (select count(*) from lapse.file_tables()), (select count(*) from lapse.file_source)), null
$$;

comment on function lapse.doctor_foreign_keys(timestamptz) is
    'Check of lapse.doctor: tables that refer to one with files and that no file source asks.';
