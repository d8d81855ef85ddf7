-- lapse.end_files: rows that come up for a claim but must not be tried once more.
--
-- In: numbers of rows that the caller has locked, no lease on them. A row that was cancelled
-- while a worker held it, and whose worker never came back, is taken out. One whose attempts
-- are used up is dead, or one over which workers were lost while it was all they had. Either,
-- if it was asked for again meanwhile, starts anew at that time instead.

create or replace function lapse.end_files(p_ids bigint[])
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    with gone as (
        delete from lapse.file_cleanup_queue as q
         where q.id = any (p_ids) and q.cancelled_at is not null and q.again_at is null
        returning q.*
    )
    insert into lapse.file_cleanup_log
           (queue_id, storage, path, reason, source_table, source_id, outcome, worker, attempts, note, enqueued_at,
            not_before)
    select g.id, g.storage, g.path, g.reason, g.source_table, g.source_id, 'cancelled', g.leased_by, g.attempts,
           'cancelled while a worker held it, and that worker never reported back', g.enqueued_at, g.not_before
      from gone as g;

    update lapse.file_cleanup_queue as q
       set dead_at      = case when q.again_at is null then clock_timestamp() end,
           last_error   = case
                              when q.again_at is not null then null
                              when q.lease_token is null
                              then coalesce(q.last_error, format('%s attempts, more than lapse.setting allows', q.attempts))
                              else format('worker %s took it for attempt %s and never reported back%s%s',
                                          q.leased_by, q.attempts,
                                          case when q.lost > 0
                                               then format(': the %s. time that a worker is lost over this file alone',
                                                           q.lost::bigint + 1) end,
                                          '; before that: ' || q.last_error)
                          end,
           not_before   = coalesce(q.again_at, q.not_before),
           enqueued_at  = case when q.again_at is null then q.enqueued_at else clock_timestamp() end,
           attempts     = case when q.again_at is null then q.attempts else 0 end,
           lost         = case when q.again_at is null then q.lost else 0 end,
           expected     = case when q.again_at is null then q.expected else q.again_expected end,
           again_at     = null,
           cancelled_at = null,
           leased_at    = null,
           leased_until = null,
           leased_by    = null,
           lease_token  = null,
           lease_size   = null
     where q.id = any (p_ids);
end;
$$;

comment on function lapse.end_files(bigint[]) is
    'Internal: take out cancelled rows whose worker went away, and bury those whose attempts are used up.';
