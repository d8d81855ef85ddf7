-- lapse.expiry_settings: the clauses that every generated function has.
--
-- In: nothing. Out: SQL between the arguments and the body. The rights are those of the table's owner; names are
-- looked up nowhere but in pg_catalog; a row that row-level security hides is an error; texts read and keys
-- are spelt the same in every session; and a plan goes over the index, whatever the planner thinks of the table today, and
-- is not compiled, which would cost more than a batch.

create or replace function lapse.expiry_settings()
    returns text
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
    select '    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set row_security = off
    set enable_seqscan = off
    set enable_bitmapscan = off
    set jit = off
    set timezone = ''UTC''
    set datestyle = ''ISO''
    set intervalstyle = ''postgres''
    set bytea_output = ''hex''
    set extra_float_digits = 1
    set standard_conforming_strings = on
    set transform_null_equals = off
'
$$;

comment on function lapse.expiry_settings() is 'Internal: the clauses of generated functions.';
