-- lapse.cron_home: the database where pg_cron lives, as far as the engine's owner may see.
--
-- Out: as lapse.cron_setting, with the owner's rights: '' where the setting is hidden from the
-- owner, too; NULL where pg_cron is not loaded.

create or replace function lapse.cron_home()
    returns text
    language sql
    stable
    security definer  -- an observer may not see settings of pg_cron
    set search_path = pg_catalog, pg_temp
as $$
    select lapse.cron_setting('database_name')
$$;

comment on function lapse.cron_home() is
    'The database where pg_cron lives; empty where that is hidden from the engine''s owner, NULL where it is not loaded.';
