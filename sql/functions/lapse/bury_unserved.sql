-- lapse.bury_unserved: give up due files of storages that no worker has ever served.
--
-- In: storages that a worker asks for at this moment, which are somebody's, and the time. Nobody claims
-- rows of a storage that no worker knows, so a mistyped name would wait for ever and never be seen.
-- They are dead, with that reason, and lapse.worker_hello revives them should a worker turn up. A storage
-- that was served once stays pending: its worker may be back. Where no worker has ever
-- said what it serves, nothing is known and nothing is buried.
--
-- Called when a claim comes back short: a few pages for each storage that is queued. At most
-- 1,000 rows at a time. The lock is that of lapse.worker_hello: a storage that is being served for
-- the first time at this moment is left alone.

create or replace function lapse.bury_unserved(p_asked text[], p_now timestamptz)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_sort = off
    set jit = off
as $$
declare
    v_served  text;
    v_unknown text[];
begin
    v_unknown := array(select n.name
                         from unnest(lapse.queued_storages()) as n (name)
                        where n.name <> all (p_asked)
                          and not exists (select from lapse.storage as s where s.name = n.name));

    if v_unknown = '{}' or not pg_try_advisory_xact_lock(1818324342, 0) then
        return;
    end if;

    select string_agg(s.name, ', ' order by s.name)
      into v_served
      from (select left(s.name, 100) as name from lapse.storage as s order by s.name limit 20) as s;

    if v_served is null then
        return;
    end if;

    with doomed as materialized (
        select d.place
          from unnest(v_unknown) as n (name)
         cross join lateral (select q.ctid as place
                               from lapse.file_cleanup_queue as q
                              where q.dead_at is null and q.storage = n.name and q.not_before <= p_now
                                and (q.leased_until is null or q.leased_until <= p_now)
                              order by q.not_before, q.id
                              limit 1000
                                for update skip locked) as d
         where not exists (select from lapse.storage as s where s.name = n.name)
         limit 1000
    )
    update lapse.file_cleanup_queue as q
       set dead_at      = p_now,
           last_error   = format('no worker has ever served storage %s; served: %s', left(q.storage, 100), v_served),
           again_at     = null,
           cancelled_at = null,
           leased_at    = null,
           leased_until = null,
           leased_by    = null,
           lease_token  = null,
           lease_size   = null
     where q.ctid = any (array(select d.place from doomed as d));
end;
$$;

comment on function lapse.bury_unserved(text[], timestamptz) is
    'Internal: give up due files of storages that no worker has ever served.';
