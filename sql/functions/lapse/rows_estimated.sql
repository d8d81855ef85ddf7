-- lapse.rows_estimated: about how many rows a table has, without reading it.
--
-- In: a table, partitioned ones and those with children summed up. Out: a number; NULL where nothing is known of one
-- of its parts. What VACUUM and ANALYZE found is scaled by the table's size of now, as the planner does, since it
-- may be old; where the running statistics say less, they are right: rows that were deleted and not vacuumed yet. So it is
-- rather too small than too large.

create or replace function lapse.rows_estimated(p_table regclass)
    returns bigint
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    with recursive part (oid) as (
        select p_table::oid
        union
        select i.inhrelid from part as p join pg_inherits as i on i.inhparent = p.oid
    )
    select case when bool_and(e.rows is not null) then sum(e.rows)::bigint end
      from part as p
      join pg_class as c on c.oid = p.oid
     cross join lateral (
           select case
                      when c.relkind = 'p' then 0
                      when c.relkind <> 'r' then null
                      when pg_relation_size(c.oid) = 0 then 0
                      else least(case when c.reltuples >= 0 and c.relpages > 0
                                      then c.reltuples::float8 / c.relpages
                                           * (pg_relation_size(c.oid) / current_setting('block_size')::integer) end,
                                 nullif(pg_stat_get_live_tuples(c.oid), 0)::float8)
                  end as rows) as e
$$;

comment on function lapse.rows_estimated(regclass) is
    'Internal: about how many rows a table has, rather too few than too many; NULL where that is not known.';
