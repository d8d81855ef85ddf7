-- lapse.cron_setting: what one of pg_cron's settings is, as far as the caller may see.
--
-- In: the setting's name without its 'cron.'. Out: its value; '' where pg_cron is
-- loaded but hides its settings from this role (it hides all of them from roles
-- without pg_read_all_settings, and reading one raises 42501); NULL where
-- pg_cron is not loaded. Invoker on purpose: the caller may see more than the owner.

create or replace function lapse.cron_setting(p_name text)
    returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
begin
    return current_setting('cron.' || p_name, true);
exception
    when insufficient_privilege then
        return '';
end;
$$;

comment on function lapse.cron_setting(text) is
    'One of pg_cron''s settings; empty where it is hidden from the caller, NULL where pg_cron is not loaded.';
