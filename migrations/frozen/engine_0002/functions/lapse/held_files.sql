-- lapse.held_files: those of a claim's files that were asked for by a row which somebody holds.
--
-- In: the places of queue rows that the caller has locked. Out: the places of those held, and why. The row that asked is
-- told by source_table and source_id; a partition is taken for its whole table, and a name that the table had for the table.

create or replace function lapse.held_files(p_places tid[])
    returns table (place tid, reason text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from lapse.hold) then
        return;
    end if;

    return query
    with asked as materialized (
        select q.ctid as place, q.source_table, q.source_id
          from lapse.file_cleanup_queue as q
         where q.ctid = any (p_places) and q.source_id is not null
    ),
    named as materialized (
        select n.source_table, lapse.whole_table(n.source_table) as whole
          from (select distinct a.source_table from asked as a where a.source_table is not null) as n
    )
    select distinct on (a.place) a.place, (k.hold).reason
      from asked as a
      join named as n on n.source_table = a.source_table
      join (select h as hold, u.key from lapse.hold as h cross join lateral unnest(array[h.key, h.file_key]) as u (key)) as k
        on k.key = a.source_id
     where a.source_table = any ((k.hold).target_names)
        or n.whole in (select lapse.hold_relations((k.hold).target_oid, (k.hold).oids_of, (k.hold).target_names));
end;
$$;

comment on function lapse.held_files(tid[]) is
    'Internal: places of queue rows whose files a held row asked to delete, and why it is held.';
