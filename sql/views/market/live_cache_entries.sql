-- market.live_cache_entries: the cache entries that have not lapsed.
--
-- What market.get_cache would find, many at a time, whether or not the sweep has
-- been. Looks into the primary key by key, into cache_entries_due otherwise. A
-- standby can't read it: the table is unlogged.

create or replace view market.live_cache_entries as
select c.key, c.value, c.created_at, c.expires_at
  from market.cache_entries as c
 where c.expires_at > now();

comment on view market.live_cache_entries is 'Cache entries that have not lapsed.';
comment on column market.live_cache_entries.key is 'What it is asked for by.';
comment on column market.live_cache_entries.value is 'What is kept.';
comment on column market.live_cache_entries.created_at is 'When it was last put there.';
comment on column market.live_cache_entries.expires_at is 'When it lapses.';
