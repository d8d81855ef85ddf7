-- lapse.key_values: the texts of a key's columns.
--
-- In: a key as people or lapse.blocked_row spell it, and how many columns it has. Out: an array with a text for
-- each; NULL where it is no such key.

create or replace function lapse.key_values(p_key text, p_columns integer)
    returns text[]
    language plpgsql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_values text[];
begin
    if p_columns = 1 then
        return array[p_key];
    end if;
    v_values := p_key::text[];
    return case when cardinality(v_values) = p_columns and array_position(v_values, null) is null then v_values end;
exception
    when data_exception then
        return null;
end;
$$;

comment on function lapse.key_values(text, integer) is
    'Internal: the texts of a key''s columns; NULL for what is no key of so many.';
