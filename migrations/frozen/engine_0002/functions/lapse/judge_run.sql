-- lapse.judge_run: would a run of this policy take too much?
--
-- In: a policy with a brake, the cutoff, how many rows a release still lets through, whether the brake holds it
-- already, and how many rows of the table may be counted without ado. Out: whether it brakes; and then the rows that are due and the rows of the table, both counted to the last.
-- It brakes when more than brake_rows are due, and more than max_fraction of the table, those let through
-- left aside. Rows that are held or set aside are not due. One that is braked stays so
-- until no more than brake_rows are due: a table that grows meanwhile, so that the share shrinks, releases nothing.
--
-- Cheap where there is no danger: a run with few rows due costs their count. Where the verdict needs a million rows of the
-- table at most, these are counted as well, a tenth of a second, and no statistics are asked. Beyond that the table's
-- size is estimated at first. An estimate may be old, so nothing is braked on its word: before that the rows are
-- counted, the table's no further than the verdict needs. That is a small part of what the run itself would cost.
-- The table of a declared policy may be somebody else's: it is counted by the policy's own function, with its owner's rights.
-- Errors are those of the policy's query.

create or replace function lapse.judge_run(
    p_policy lapse.policy,
    p_as_of  timestamptz,
    p_spare  bigint,
    p_braked boolean,
    p_sure   bigint default 1000000,
    out brakes  boolean,
    out due     bigint,
    out of_rows bigint
)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_table  text   := lapse.quoted_name(p_policy.target_table);
    v_count  text   := 'select count(*) from (' || lapse.due_query(p_policy) || ') as q';
    c_most   constant bigint := 2147483647;
    v_few    bigint := p_policy.brake_rows + p_spare;
    v_sure   bigint := floor(p_policy.max_fraction * p_sure)::bigint + p_spare;
    v_rows   bigint;
    v_cap    bigint;
    v_needed bigint;
begin
    brakes := false;

    execute v_count into due using '-infinity'::timestamptz, p_as_of, least(v_few + 1, c_most)::integer;
    if due <= v_few or p_braked then
        brakes := due > v_few;
        return;
    end if;

    if v_sure > v_few then
        execute v_count into due using '-infinity'::timestamptz, p_as_of, least(v_sure + 1, c_most)::integer;
    end if;

    v_rows := case when due > v_sure then lapse.rows_estimated(v_table::regclass) end;
    if v_rows is not null then
        v_cap := greatest(floor(p_policy.max_fraction * v_rows)::bigint, p_policy.brake_rows) + p_spare;
        execute v_count into due using '-infinity'::timestamptz, p_as_of, least(v_cap + 1, c_most)::integer;
        if due <= v_cap then
            return;
        end if;
    end if;

    if due > v_sure then
        execute v_count into due using '-infinity'::timestamptz, p_as_of, c_most::integer;
    end if;

    v_needed := ceil((due - p_spare) / p_policy.max_fraction)::bigint;
    execute case
                when p_policy.action is null then format('select count(*) from (select from %s limit $1) as t', v_table)
                else format('select t.key::bigint from %s(''size''::text, null::timestamptz, null::timestamptz, $1, '
                            'null::regclass, null::text[]) as t', lapse.checked_due_function(p_policy))
            end
       into of_rows
      using least(v_needed, c_most)::integer;
    brakes := of_rows < least(v_needed, c_most);
end;
$$;

comment on function lapse.judge_run(lapse.policy, timestamptz, bigint, boolean, bigint) is
    'Internal: whether a policy''s brake stops a run with this cutoff; how many rows are due, of how many.';
