-- market.forget_cache: delete a lapsed cache entry, if nobody minds.
--
-- In: the key and the time. Out: nothing. To market.get_cache what
-- market.forget_session is to market.get_session, with the same conditions: it
-- raises nothing, waits for nobody, and leaves the rest to policy purge_cache.

create or replace function market.forget_cache(
    p_key text,
    p_now timestamptz
)
    returns void
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
    set lock_timeout = '1 ms'
as $$
begin
    if current_setting('transaction_read_only')::boolean
       or current_setting('transaction_isolation') in ('serializable', 'repeatable read')
       or exists (select from pg_trigger as t
                   where t.tgrelid = 'market.cache_entries'::regclass and t.tgdeferrable) then
        return;
    end if;

    perform from market.cache_entries as c
      where c.key = p_key
        and c.expires_at <= p_now
        for update skip locked;
    if found then
        delete from market.cache_entries as c
         where c.key = p_key
           and p_key not in (select lapse.held_keys('market.cache_entries'));
    end if;
exception
    when others then
        null;
end;
$$;

comment on function market.forget_cache(text, timestamptz) is
    'Internal: delete a lapsed cache entry, unless that would wait or fail.';
