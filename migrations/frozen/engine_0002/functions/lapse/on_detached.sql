-- lapse.on_detached: is this a trigger that a partition has kept since it was detached?
--
-- In: a trigger. Out: whether lapse.attach_files made it for a partition of a table, and what it stands on is none
-- any more. Such a trigger says nothing of what is attached to its table. PostgreSQL leaves it there; its comment tells it apart.

create or replace function lapse.on_detached(p_trigger oid)
    returns boolean
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select not c.relispartition and coalesce(obj_description(t.oid, 'pg_trigger'), '') like '%On a partition.'
      from pg_trigger as t
      join pg_class as c on c.oid = t.tgrelid
     where t.oid = p_trigger
$$;

comment on function lapse.on_detached(oid) is
    'Internal: whether a trigger of an attachment stands on a partition that was detached since.';
