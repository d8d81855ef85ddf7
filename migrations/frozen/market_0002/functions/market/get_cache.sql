-- market.get_cache: what is kept under this key?
--
-- In: the key and the time. Out: the value, or NULL when there is none or it has
-- lapsed, whether or not the sweep has been; on a standby always NULL, since an
-- unlogged table can't be read there. Raises LP108 for NULL given, and nothing
-- else of its own: a lapsed entry is deleted (market.forget_cache) only where
-- that neither waits nor can fail the read. Without a scan under any plan, also
-- one made while the table was empty.

create or replace function market.get_cache(
    p_key text,
    p_now timestamptz default now()
)
    returns jsonb
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_value      jsonb;
    v_expires_at timestamptz;
begin
    if num_nulls(p_key, p_now) > 0 then
        raise exception 'get_cache was given NULL'
            using errcode = 'LP108', hint = 'Give a key and a time.';
    elsif pg_is_in_recovery() then
        return null;
    end if;

    select c.value, c.expires_at into v_value, v_expires_at from market.cache_entries as c where c.key = p_key;
    if v_expires_at <= p_now then
        perform market.forget_cache(p_key, p_now);
        return null;
    end if;

    return v_value;
end;
$$;

comment on function market.get_cache(text, timestamptz) is
    'What is kept under a key; NULL when there is nothing or it has lapsed, and on a standby.';
