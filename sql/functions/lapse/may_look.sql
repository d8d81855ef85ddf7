-- lapse.may_look: may a table be read here without running what somebody else wrote?
--
-- In: a table. Out: whether the caller may select from it, and it has no code of somebody else's (lapse.foreign_code).

create or replace function lapse.may_look(p_relation oid)
    returns boolean
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case
               when not (has_schema_privilege(c.relnamespace, 'usage') and has_table_privilege(c.oid, 'select')) then false
               when r.rolsuper or r.rolname = current_user then true
               else lapse.foreign_code(c.oid::regclass) is null
           end
      from pg_class as c
      join pg_roles as r on r.oid = c.relowner
     where c.oid = p_relation
$$;

comment on function lapse.may_look(oid) is
    'Internal: whether a table can be read with the caller''s rights without running what somebody else wrote.';
