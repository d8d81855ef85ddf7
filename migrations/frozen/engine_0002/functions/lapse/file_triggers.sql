-- lapse.file_triggers: triggers that queue files in a way of their own.
--
-- In: tables, and what is done to their rows: delete or update. Out: for each such table its enabled triggers of
-- that kind whose function speaks of the file queue, other than those that lapse.attach_files made: how
-- many files they queue is known to nobody but them. Reads the catalog alone.

create or replace function lapse.file_triggers(p_tables oid[], p_event text)
    returns table (relation regclass, trigger_name text, function regproc)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with recursive tree as (
        select u.relid from unnest(p_tables) as u (relid)
        union
        select i.inhrelid from tree as t join pg_inherits as i on i.inhparent = t.relid
    )
    select g.tgrelid::regclass, g.tgname::text, g.tgfoid::regproc
      from tree as t
      join pg_trigger as g on g.tgrelid = t.relid
      join pg_proc as p on p.oid = g.tgfoid
     where not g.tgisinternal
       and g.tgparentid = 0
       and g.tgenabled <> 'D'
       and g.tgtype & case p_event when 'delete' then 8 else 16 end <> 0
       and p.prosrc ~ '\mlapse\s*\.\s*(enqueue_\w+|file_cleanup_queue)\M'
     order by g.tgrelid::regclass::text, g.tgname
$$;

comment on function lapse.file_triggers(oid[], text) is
    'Triggers of tables that queue files when rows are deleted or updated, by what their functions say.';
