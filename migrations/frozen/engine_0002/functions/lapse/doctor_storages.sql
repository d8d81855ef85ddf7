-- lapse.doctor_storages: does somebody delete from each storage?
--
-- In: the time. Out: findings for lapse.doctor: storages with due files and no living worker,
-- those that no worker has ever served (a name mistyped?), and what workers say is wrong. Whether
-- a root can be reached from here is `pglapse doctor`'s to see.

create or replace function lapse.doctor_storages(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with live as materialized (
        select q.*, exists (select from lapse.worker_status as w where w.alive) as any_worker from lapse.queue_by_storage as q
    )
    select 'fail',
           format('storage %s is away, and its files wait: %s', s.storage, left(t.trouble, 500)),
           'pglapse storage list  # mend what it says; the worker goes on by itself'
      from lapse.storage_status as s, unnest(s.troubles) as t (trouble)
    union all
    select 'fail',
           format('no worker has ever served storage %s, and %s%s of its files are due: is its name mistyped?', l.storage,
                  case when l.counts_are_minimum then 'at least ' else '' end, l.due),
           format('select * from lapse.queue_detail where storage = %L; -- then a worker: pglapse worker, with a table [storage.NAME] in its pglapse.toml', l.storage)
      from live as l
     where l.first_served_at is null and l.due > 0
    union all
    select case when l.due > 0 then 'fail' else 'warn' end,
           format('no living worker serves storage %s, the last did %s ago%s', l.storage, lapse.doctor_span(p_now - l.last_served_at),
                  case when l.due > 0 then format('; %s%s of its files are due', case when l.counts_are_minimum then 'at least ' else '' end, l.due)
                       else '' end),
           case when l.pending > 0 or l.due > 0 then 'pglapse worker'
                else format('delete from lapse.storage where name = %L; -- if it is gone for good; else: pglapse worker', l.storage) end
      from live as l
     where l.first_served_at is not null and l.workers = 0 and (l.due > 0 or l.any_worker)
    union all
    select 'ok', coalesce(string_agg(format('%s has %s', l.storage, case l.workers when 1 then '1 worker' else l.workers || ' workers' end),
                                     ', ' order by l.storage),
                          'no storage was ever served, and no file waits'), null
      from live as l
$$;

comment on function lapse.doctor_storages(timestamptz) is
    'Check of lapse.doctor: storages that nobody serves, or that workers are in trouble with.';
