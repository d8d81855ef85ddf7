-- lapse.doctor_queue: are files given up or stuck?
--
-- In: the time. Out: findings for lapse.doctor: dead rows, a line a storage, and storages whose
-- due files wait although workers serve them. What no worker serves is lapse.doctor_storages'.

create or replace function lapse.doctor_queue(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with dead as (
        select q.storage, q.last_error, q.dead_at
          from lapse.file_cleanup_queue as q
         where q.dead_at is not null
         order by q.dead_at desc, q.id desc
         limit 10001
    ),
    live as materialized (select q.* from lapse.queue_by_storage as q)
    select 'warn',
           format('%s files of storage %s are given up, the last %s ago: %s',
                  case when count(*) > 10000 then 'more than 10,000' else count(*)::text end, d.storage,
                  lapse.doctor_span(p_now - max(d.dead_at)),
                  left(coalesce((array_agg(d.last_error order by d.dead_at desc))[1], 'without an error'), 300)),
           format('select lapse.retry_files(p_storage => %L); -- mend the cause first; see pglapse queue list --state dead', d.storage)
      from dead as d
     group by d.storage
    union all
    select case when l.oldest_due_age > interval '1 hour' then 'fail' else 'warn' end,
           format('%s%s files of storage %s are due, the oldest for %s, although %s workers serve it%s',
                  case when l.counts_are_minimum then 'at least ' else '' end, l.due, l.storage,
                  lapse.doctor_span(l.oldest_due_age), l.workers,
                  coalesce('; the last error: ' || left((select q.last_error from lapse.file_cleanup_queue as q
                                                          where q.dead_at is null and q.storage = l.storage
                                                            and q.last_error is not null and q.not_before <= p_now
                                                          order by q.not_before, q.id limit 1), 200), '')),
           'pglapse worker'
      from live as l
     where l.workers > 0 and l.oldest_due_age > interval '15 minutes'
    union all
    select 'ok',
           format('%s files wait, %s are due, %s failed before, none is given up', coalesce(sum(l.pending), 0),
                  coalesce(sum(l.due), 0), coalesce(sum(l.retrying), 0)),
           null
      from live as l
$$;

comment on function lapse.doctor_queue(timestamptz) is
    'Check of lapse.doctor: files that were given up, and files that are due and do not go.';
