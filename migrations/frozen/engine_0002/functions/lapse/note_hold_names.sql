-- lapse.note_hold_names: have holds know their tables by today's names and numbers.
--
-- Out: nothing. Each run looks at this when it begins. A table that was renamed is known by both names from then on, so that a
-- dump restored elsewhere, where it has another number, still holds its rows; and after such a restore the
-- numbers are those of the new tables. What somebody else has locked is left for the next time.

create or replace function lapse.note_hold_names()
    returns void
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    with tables as materialized (
        select distinct h.target_table, h.target_oid, h.oids_of, h.target_names from lapse.hold as h
    ),
    news as materialized (
        select t.*, n.relation, n.name
          from tables as t
         cross join lateral (
               select c.oid as relation, format('%I.%I', s.nspname, c.relname) as name
                 from pg_class as c
                 join pg_namespace as s on s.oid = c.relnamespace
                where c.oid = case when t.oids_of = 'lapse.hold'::regclass then t.target_oid
                                   else (select lapse.whole_table(u.name)
                                           from unnest(t.target_names) with ordinality as u (name, place)
                                          where lapse.whole_table(u.name) is not null
                                          order by u.place desc
                                          limit 1) end) as n
         where t.oids_of <> 'lapse.hold'::regclass or n.name <> all (t.target_names)
    ),
    those as materialized (
        select h.target_table, h.key, n.relation, n.name
          from news as n
          join lapse.hold as h
            on h.target_table = n.target_table and h.target_oid = n.target_oid and h.oids_of = n.oids_of
           and h.target_names = n.target_names
           for update of h skip locked
    )
    update lapse.hold as h
       set target_oid   = n.relation,
           oids_of      = 'lapse.hold'::regclass,
           target_names = case when n.name = any (h.target_names) then h.target_names
                               else h.target_names || n.name end
      from those as n
     where h.target_table = n.target_table and h.key = n.key
$$;

comment on function lapse.note_hold_names() is
    'Internal: have holds know their tables by the names and numbers that these have now.';
