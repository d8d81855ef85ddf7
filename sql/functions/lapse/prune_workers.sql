-- lapse.prune_workers: step of policy prune_workers; heartbeats of dead workers go.
--
-- In and out: as every step. A worker that says goodbye takes its row with it; one
-- that was killed leaves it. It is due once it has not been seen for a day, long after
-- its leases ended, and late enough to be noticed in the status.

create or replace function lapse.prune_workers(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
    returns lapse.progress
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    with due as materialized (
        select w.id, w.last_seen_at
          from lapse.worker as w
         where w.last_seen_at >= p_after - interval '1 day'
           and w.last_seen_at <= p_cutoff - interval '1 day'
         order by w.last_seen_at, w.id
         limit p_limit
           for update of w skip locked
    ),
    gone as (
        delete from lapse.worker as w
         using due as d
         where w.id = d.id
        returning 1
    )
    select row((select count(*) from due)::integer,
               (select count(*) from gone)::integer,
               (select max(d.last_seen_at) + interval '1 day' from due as d))::lapse.progress
$$;

comment on function lapse.prune_workers(integer, timestamptz, timestamptz) is
    'Step: delete the heartbeats of workers that were not seen for a day.';
