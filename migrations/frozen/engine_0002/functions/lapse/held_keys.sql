-- lapse.held_keys: the rows of a table that somebody holds.
--
-- In: the table, schema.name. Out: their keys, as lapse.hold has them. For file sources: what a held row speaks of is
-- needed, also where the row's own state says otherwise; say so with an end, ten minutes from now, since a file
-- that is needed for good leaves the queue for good.

create or replace function lapse.held_keys(p_table text)
    returns setof text
    language plpgsql
    stable
    security definer  -- a file source needs no right on the table
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_table regclass;
begin
    if exists (select from lapse.hold) then
        v_table := lapse.whole_table(p_table);
        return query select h.key from lapse.held_rows(v_table) as h;
    end if;
end;
$$;

comment on function lapse.held_keys(text) is
    'For file sources: the keys of a table''s rows that lapse.hold keeps.';
