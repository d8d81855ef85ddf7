-- lapse.doctor_identity: is this the database that pglapse was told to clean up?
--
-- In: the time. Out: findings for lapse.doctor. A restored, cloned or renamed database
-- deletes nothing until somebody says that it is the one, so this is the first thing to know.

create or replace function lapse.doctor_identity(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select 'fail',
           format('this is database %s of system %s, and pglapse is to clean up %s of system %s: a copy, so nothing runs and no file is deleted',
                  current_database(), c.system_identifier, i.database_name, i.system_identifier),
           'select lapse.adopt_database();'
      from lapse.identity as i, pg_control_system() as c
     where (i.system_identifier, i.database_name) is distinct from (c.system_identifier, current_database())
    union all
    select 'fail', 'nothing says which database pglapse is to clean up: nothing runs and no file is deleted',
           'select lapse.adopt_database();'
     where not exists (select from lapse.identity)
    union all
    select 'ok', format('the database that pglapse is to clean up, since %s', date_trunc('second', i.adopted_at)), null
      from lapse.identity as i
$$;

comment on function lapse.doctor_identity(timestamptz) is
    'Check of lapse.doctor: the restore guard.';
