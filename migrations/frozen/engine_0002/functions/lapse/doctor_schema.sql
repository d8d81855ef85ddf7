-- lapse.doctor_schema: which pglapse is installed, and where.
--
-- In: the time. Out: findings for lapse.doctor. On a standby all of it can be read and none of
-- it works, which looks like a scheduler that died.

create or replace function lapse.doctor_schema(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select 'warn', 'this server is a standby: policies run and workers work on its primary only',
           'connect to the primary, for example with target_session_attrs=read-write in DATABASE_URL'
     where pg_is_in_recovery()
    union all
    select 'ok',
           format('pglapse, API %s, revision %s, in database %s of PostgreSQL %s', lapse.api_version(),
                  (select string_agg(v.version_num, ' and ' order by v.version_num) from lapse.pglapse_version as v),
                  current_database(), current_setting('server_version')),
           null
$$;

comment on function lapse.doctor_schema(timestamptz) is
    'Check of lapse.doctor: which pglapse is installed, and that the server is no standby.';
