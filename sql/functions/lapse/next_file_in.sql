-- lapse.next_file_in: seconds until a look at the queue may find work again.
--
-- In: the time of the claim that came back short, and its resume point. Out: seconds until
-- the next row is due or a lease ends; NULL when nothing is pending. A row that is due, free
-- and was not claimed is locked by somebody: look again in half a second. Taken at the
-- claim's own time, so that no row falls between the two looks. At most 10,000 leased rows
-- are looked at; a worker polls anyway. A lease without end, which only a hand can write, is not
-- waited for: PostgreSQL 15 knows no infinite interval.

create or replace function lapse.next_file_in(p_now timestamptz, p_after_due timestamptz, p_after_id bigint)
    returns double precision
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select extract(epoch from least(
        (select min(case when b.leased_until > p_now then b.leased_until else p_now + interval '0.5 s' end)
           from (select q.leased_until
                   from lapse.file_cleanup_queue as q
                  where q.dead_at is null
                    and q.not_before <= p_now
                    and (q.not_before, q.id) > (p_after_due, p_after_id)
                  order by q.not_before, q.id
                  limit 10000) as b
          where b.leased_until is null or b.leased_until < 'infinity'),
        (select min(w.not_before)
           from (select q.not_before
                   from lapse.file_cleanup_queue as q
                  where q.dead_at is null and q.not_before > p_now and q.not_before < 'infinity'
                  order by q.not_before, q.id
                  limit 1) as w)) - p_now)::double precision
$$;

comment on function lapse.next_file_in(timestamptz, timestamptz, bigint) is
    'Internal: seconds until the next queue row is due or a lease ends; NULL when nothing is pending.';
