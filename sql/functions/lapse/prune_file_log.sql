-- lapse.prune_file_log: a step that forgets files finished longer ago than lapse.setting.file_log_keep.
--
-- In and out as of every step. An entry is due when it was finished plus the time to keep.

create or replace function lapse.prune_file_log(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
    returns lapse.progress
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    with due as materialized (
        select l.id, l.finished_at, l.finished_at + s.file_log_keep as due
          from lapse.setting as s
         cross join lateral (select l.id, l.finished_at
                               from lapse.file_cleanup_log as l
                              where l.finished_at >= p_after - s.file_log_keep
                                and l.finished_at <= p_cutoff - s.file_log_keep
                              order by l.finished_at, l.id
                              limit p_limit
                                for update skip locked) as l
    ),
    gone as (
        delete from lapse.file_cleanup_log as l
         using due as d
         where l.finished_at = d.finished_at and l.id = d.id
        returning 1
    )
    select (select count(*) from due)::integer, (select count(*) from gone)::integer, (select max(d.due) from due as d)
$$;

comment on function lapse.prune_file_log(integer, timestamptz, timestamptz) is
    'Step: delete entries of lapse.file_cleanup_log older than lapse.setting.file_log_keep.';
