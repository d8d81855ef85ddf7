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
    select case when h.trouble is null then 'ok' else 'fail' end,
           case when h.trouble is null
                then format('the database that pglapse is to clean up, since %s', date_trunc('second', i.adopted_at))
                else h.trouble || ': nothing runs and no file is deleted' end,
           case when h.trouble is not null then 'select lapse.adopt_database();' end
      from (select lapse.halt_reason() as trouble) as h
      left join lapse.identity as i on true
$$;

comment on function lapse.doctor_identity(timestamptz) is
    'Check of lapse.doctor: the restore guard.';
