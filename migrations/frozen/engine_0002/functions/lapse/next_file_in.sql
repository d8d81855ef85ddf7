-- lapse.next_file_in: seconds until a look at a storage's part of the queue may find work again.
--
-- In: the storage, and the time of the claim that came back short. Out: seconds until
-- the next row is due or a lease ends; NULL when nothing is pending. A row that is due, free
-- and was not claimed is locked by somebody: look again in half a second. Taken at the
-- claim's own time, so that no row falls between the two looks. At most 10,000 leased rows
-- are looked at; a worker polls anyway. A lease without end, which only a hand can write, is not
-- waited for: PostgreSQL 15 knows no infinite interval. PL/pgSQL keeps the plan, SQL would not.

create or replace function lapse.next_file_in(p_storage text, p_now timestamptz)
    returns double precision
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_sort = off
    set jit = off
as $$
begin
    return extract(epoch from least(
        (select min(case when b.leased_until > p_now then b.leased_until else p_now + interval '0.5 s' end)
           from (select q.leased_until
                   from lapse.file_cleanup_queue as q
                  where q.dead_at is null and q.storage = p_storage and q.not_before <= p_now
                  order by q.not_before, q.id
                  limit 10000) as b
          where b.leased_until is null or b.leased_until < 'infinity'),
        (select min(w.not_before)
           from (select q.not_before
                   from lapse.file_cleanup_queue as q
                  where q.dead_at is null and q.storage = p_storage
                    and q.not_before > p_now and q.not_before < 'infinity'
                  order by q.not_before, q.id
                  limit 1) as w)) - p_now)::double precision;
end;
$$;

comment on function lapse.next_file_in(text, timestamptz) is
    'Internal: seconds until a storage''s next queue row is due or a lease ends; NULL when nothing is pending.';
