-- lapse.database_status: whether pglapse works in this database, in one row.
--
-- The first thing to look at: where adopted is false, no policy runs and no file is deleted.

create or replace view lapse.database_status as
select current_database()::text as database, h.trouble is null as adopted, h.trouble, i.adopted_at, i.adopted_by,
       (select count(*) from lapse.hold as o) as holds
  from (select lapse.halt_reason() as trouble) as h
  left join lapse.identity as i on true;

comment on view lapse.database_status is
    'Whether this database is pglapse''s own, or a copy in which nothing runs until lapse.adopt_database.';
comment on column lapse.database_status.database is 'The database.';
comment on column lapse.database_status.adopted is 'False: no policy runs and no file is deleted.';
comment on column lapse.database_status.trouble is 'Why not.';
comment on column lapse.database_status.adopted_at is 'When pglapse was installed here, or last told to take this database for its own.';
comment on column lapse.database_status.adopted_by is 'By which role.';
comment on column lapse.database_status.holds is 'Rows that lapse.hold keeps.';
