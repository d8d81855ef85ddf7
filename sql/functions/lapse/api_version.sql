-- lapse.api_version: which set of functions this database offers.
--
-- Out: a whole number that grows when a function that workers call changes its
-- signature or meaning. A worker asks once after connecting and refuses to work
-- with another number, so that old and new never talk past each other.

create or replace function lapse.api_version()
    returns integer
    language sql
    immutable
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select 1
$$;

comment on function lapse.api_version() is
    'The version of the functions that workers call: a worker refuses to work with another one.';
