-- lapse.files_of_row: what the file queue and its log know of the files that a row asked to delete.
--
-- In: the table and the row's key. Out: up to one line from the queue and one from the log. Neither has an index for this
-- question, which few ask, so the latest 100,000 entries of each are looked at.

create or replace function lapse.files_of_row(p_table regclass, p_key text)
    returns table (state text, says text)
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    with queued as (
        select q.*
          from (select q.* from lapse.file_cleanup_queue as q order by q.id desc limit 100000) as q
         where q.source_id = p_key and lapse.whole_table(q.source_table) = p_table
    ),
    logged as (
        select l.*
          from (select l.* from lapse.file_cleanup_log as l order by l.finished_at desc limit 100000) as l
         where l.source_id = p_key and lapse.whole_table(l.source_table) = p_table
    )
    select 'files queued',
           format('%s queued, %s of them dead, the first one due at %s: %s:%s', count(*),
                  count(*) filter (where q.dead_at is not null), min(q.not_before),
                  (array_agg(q.storage order by q.not_before, q.id))[1], (array_agg(q.path order by q.not_before, q.id))[1])
      from queued as q
    having count(*) > 0
    union all
    select 'files gone',
           format('%s on record, the last one %s at %s: %s:%s', count(*), (array_agg(l.outcome order by l.finished_at desc))[1],
                  date_trunc('second', max(l.finished_at)), (array_agg(l.storage order by l.finished_at desc))[1],
                  (array_agg(l.path order by l.finished_at desc))[1])
      from logged as l
    having count(*) > 0
$$;

comment on function lapse.files_of_row(regclass, text) is
    'Internal: what the file queue and its log know of a row''s files, among their latest entries.';
