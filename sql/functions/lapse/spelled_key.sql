-- lapse.spelled_key: look a row up by one key, and spell it by another.
--
-- In: a table; the columns and the value of a key; the columns of the key that is wanted; whether to lock the row
-- against being deleted, waiting for whoever is just doing that. Out: the wanted key as lapse.due_query
-- spells it; NULL where there is no such row, or the value is none that these columns can have.

create or replace function lapse.spelled_key(
    p_table   regclass,
    p_columns text[],
    p_key     text,
    p_wanted  text[],
    p_lock    boolean default false
)
    returns text
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set row_security = off  -- a hidden row is an error, not a row that is not there
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
    set bytea_output = 'hex'
    set extra_float_digits = 1
as $$
declare
    v_values text[] := lapse.key_values(p_key, cardinality(p_columns));
    v_key    text;
begin
    if v_values is not null then
        execute format('select %s from %s as t where %s%s', lapse.key_expression(p_wanted, 't'), p_table,
                       lapse.key_condition(p_table, p_columns, 't'), case when p_lock then ' for key share of t' end)
           into v_key
          using v_values;
    end if;
    return v_key;
exception
    when data_exception then
        return null;
end;
$$;

comment on function lapse.spelled_key(regclass, text[], text, text[], boolean) is
    'Internal: look a row up by one key and spell it by another; NULL where there is none.';
