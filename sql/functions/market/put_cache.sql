-- market.put_cache: keep a value for a while.
--
-- In: the key, the value, when it lapses, and the time. Out: nothing. Replaces
-- what was there. Raises LP108 for a key of no or too many bytes, an expiry that
-- is not in the future or without end, or NULL given: every entry has an expiry,
-- and SQL's NULL is what market.get_cache answers for nothing (JSON's null is a
-- value like any other). Who puts the same key at the same time waits: the last wins.

create or replace function market.put_cache(
    p_key        text,
    p_value      jsonb,
    p_expires_at timestamptz,
    p_now        timestamptz default now()
)
    returns void
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if p_expires_at is null or not isfinite(p_expires_at) then
        raise exception 'a cache entry needs an expiry'
            using errcode = 'LP108', hint = 'Give a time in the future, such as now() + interval ''5 minutes''.';
    elsif num_nulls(p_key, p_value, p_now) > 0 then
        raise exception 'put_cache was given NULL'
            using errcode = 'LP108', hint = 'Give a key, a value (JSON''s null is one), an expiry and a time.';
    elsif octet_length(p_key) not between 1 and 1000 then
        raise exception 'a cache key can''t have % bytes', octet_length(p_key)
            using errcode = 'LP108', hint = 'Use 1 to 1,000 bytes; of a longer key, a hash.';
    elsif p_expires_at <= p_now then
        raise exception 'can''t keep what lapsed at %', p_expires_at
            using errcode = 'LP108', hint = 'Give an expiry in the future.';
    end if;

    insert into market.cache_entries (key, value, created_at, expires_at)
    values (p_key, p_value, p_now, p_expires_at)
    on conflict (key) do update
       set value = excluded.value, created_at = excluded.created_at, expires_at = excluded.expires_at;
end;
$$;

comment on function market.put_cache(text, jsonb, timestamptz, timestamptz) is
    'Keep a value until p_expires_at, in place of what was there. LP108 bad key, no expiry, or one in the past.';
