-- lapse.own_triggers: triggers that belong to pglapse, on whatever table.
--
-- Out: trigger, table, names, and whether it fires. Ours are those whose function lies in
-- schema lapse or in a schema whose comment speaks of pglapse (the marketplace), is one that
-- pglapse wrote (lapse_...), or calls a function of lapse: the ones that queue files.

create or replace function lapse.own_triggers()
    returns table (trigger oid, relation oid, table_name text, trigger_name name, enabled "char", parent oid, function oid)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select t.oid, t.tgrelid, format('%I.%I', s.nspname, c.relname), t.tgname, t.tgenabled, t.tgparentid, t.tgfoid
      from pg_trigger as t
      join pg_proc as p on p.oid = t.tgfoid
      join pg_namespace as n on n.oid = p.pronamespace
      join pg_class as c on c.oid = t.tgrelid
      join pg_namespace as s on s.oid = c.relnamespace
     where not t.tgisinternal
       and n.nspname <> 'pg_catalog'
       and (n.nspname = 'lapse'
            or starts_with(p.proname, 'lapse_')
            or p.prosrc ~ '\mlapse\.'
            or obj_description(n.oid, 'pg_namespace') ~ '\mpglapse\M')
$$;

comment on function lapse.own_triggers() is
    'Triggers that belong to pglapse or call it: on which table, and whether they fire.';
