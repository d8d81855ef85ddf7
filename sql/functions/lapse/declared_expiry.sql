-- lapse.declared_expiry: the policy of this name, for those who can't read lapse.policy.
--
-- In: its name. Out: one row, or none: whether it was declared, its table, its step and the function that names its due rows (both NULL
-- for a step written by hand). Names alone, which the catalog shows to everybody.

create or replace function lapse.declared_expiry(
    p_name       text,
    out declared boolean,
    out target   text,
    out step     text,
    out due      text
)
    returns setof record
    language sql
    stable
    security definer  -- authors have no right on lapse.policy
    set search_path = pg_catalog, pg_temp
as $$
    select p.action is not null, p.target_table, case when p.action is not null then p.step end, lapse.due_function(p)
      from lapse.policy as p
     where p.name = p_name
$$;

comment on function lapse.declared_expiry(text) is
    'Internal: names of a policy''s table and generated functions.';
