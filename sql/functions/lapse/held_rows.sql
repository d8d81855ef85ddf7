-- lapse.held_rows: the holds that speak of a table.
--
-- In: a table; of a partition, the whole one; and which hold alone to look at, by table and key as lapse.hold has them. Out:
-- rows of lapse.hold.

create or replace function lapse.held_rows(p_table oid, p_hold_table text default null, p_hold_key text default null)
    returns setof lapse.hold
    language plpgsql
    stable
    rows 10
    set search_path = pg_catalog, pg_temp
as $$
begin
    if p_hold_table is not null then
        return query
        select h.*
          from lapse.hold as h
         where h.target_table = p_hold_table and h.key = p_hold_key
           and p_table in (select lapse.hold_relations(h.target_oid, h.oids_of, h.target_names));
        return;
    end if;

    return query
    select h.*
      from (select distinct h.target_oid, h.oids_of, h.target_names from lapse.hold as h) as t
      join lapse.hold as h
        on h.target_oid = t.target_oid and h.oids_of = t.oids_of and h.target_names = t.target_names
     where p_table in (select lapse.hold_relations(t.target_oid, t.oids_of, t.target_names));
end;
$$;

comment on function lapse.held_rows(oid, text, text) is 'Internal: the holds that speak of a table.';
