-- lapse.prune_run_log: step of policy prune_run_log; old history goes.
--
-- In and out: as every step. An entry is due once it ended longer ago than
-- lapse.setting.run_log_keep; the due time is a sum and so no column, which is why
-- the range is moved instead: an index can serve that. Open runs are in
-- lapse.policy_state, so none of them can go.

create or replace function lapse.prune_run_log(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
    returns lapse.progress
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    with due as materialized (
        select l.id, l.finished_at
          from lapse.run_log as l
         where l.finished_at >= p_after - (select s.run_log_keep from lapse.setting as s)
           and l.finished_at <= p_cutoff - (select s.run_log_keep from lapse.setting as s)
         order by l.finished_at
         limit p_limit
           for update of l skip locked
    ),
    gone as (
        delete from lapse.run_log as l
         using due as d
         where l.id = d.id
        returning 1
    )
    select row((select count(*) from due)::integer,
               (select count(*) from gone)::integer,
               (select max(d.finished_at) + (select s.run_log_keep from lapse.setting as s)
                  from due as d))::lapse.progress
$$;

comment on function lapse.prune_run_log(integer, timestamptz, timestamptz) is
    'Step: delete entries of lapse.run_log older than lapse.setting.run_log_keep.';
