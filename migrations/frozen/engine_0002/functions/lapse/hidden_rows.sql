-- lapse.hidden_rows: does row-level security keep rows of a table from a role?
--
-- In: the table and the role. Out: one row where it does, none where it doesn't: the security policies that
-- decide for this role, and the statement that lets it see all. A cleaner that does not see a row reports
-- that nothing is due, so a run turns row_security off and fails; this says so beforehand. The table that is named in a query
-- counts, not its partitions; foreign keys' cascades see all rows in any case. Reads the catalog alone.

create or replace function lapse.hidden_rows(p_target regclass, p_role name)
    returns table (policies text[], statement text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select coalesce((select array_agg(p.polname::text order by p.polname)
                       from pg_policy as p
                      where p.polrelid = c.oid and p.polcmd in ('*', 'r')), '{}'),
           case when o.owns
                then format('alter table %I.%I no force row level security;', n.nspname, c.relname)
                else format('alter role %I bypassrls;', r.rolname)
           end
      from pg_class as c
      join pg_namespace as n on n.oid = c.relnamespace
      join pg_roles as r on r.rolname = p_role
     cross join lateral (select pg_has_role(r.oid, c.relowner, 'USAGE') as owns) as o
     where c.oid = p_target
       and c.relrowsecurity
       and not r.rolsuper
       and not r.rolbypassrls
       and (not o.owns or c.relforcerowsecurity)
$$;

comment on function lapse.hidden_rows(regclass, name) is
    'Whether row-level security keeps rows of a table from a role: a row that says by which policies, and what helps.';
