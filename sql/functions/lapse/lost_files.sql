-- lapse.lost_files: which lost rows a claim takes.
--
-- In: places of rows, locked by the caller, whose worker never reported back; how many at most. Out: the
-- places of those lost together with the first of them, at most half as many as were lost then, and
-- at least one. By halves, the file that kills its worker is found: in the end it is alone.

create or replace function lapse.lost_files(p_places tid[], p_limit integer)
    returns tid[]
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
    with lost as materialized (
        select q.ctid as place, q.lease_token, greatest(coalesce(q.lease_size, 2) / 2, 1) as half,
               row_number() over (order by q.not_before, q.id) as position
          from lapse.file_cleanup_queue as q
         where q.ctid = any (p_places)
    )
    select array(select l.place
                   from lost as l
                  where l.lease_token = f.lease_token
                  order by l.position
                  limit least(f.half, p_limit))
      from lost as f
     where f.position = 1
$$;

comment on function lapse.lost_files(tid[], integer) is
    'Internal: of rows whose worker never reported back, those to be tried next, alone.';
