-- lapse.forget_attachments: forget what is not there any more.
--
-- In: nothing. Out: the tables of attachments whose functions are gone, with their file sources: whoever dropped them
-- could. Believes the catalog alone, so anybody who may attach may call it.

create or replace function lapse.forget_attachments()
    returns table (target_table text)
    language sql
    volatile
    security definer  -- an owner of tables has no right on the engine's
    set search_path = pg_catalog, pg_temp
as $$
    with gone as (
        select a.name, a.target_table
          from lapse.attachment as a
         where to_regprocedure(a.function || '()') is null
    ),
    forgotten as (
        delete from lapse.file_source as s using gone as g where s.name = g.name
    )
    select g.target_table from gone as g order by 1
$$;

comment on function lapse.forget_attachments() is
    'Internal: forget attachments whose functions were dropped; returns their tables.';
