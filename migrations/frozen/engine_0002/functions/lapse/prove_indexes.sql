-- lapse.prove_indexes: step of policy prove_indexes; every enabled policy shows its index, or this fails.
--
-- In: as every step; all of it is ignored. Out: nothing picked, when all is well. Raises LP030 when a policy's
-- statement reads more than it takes: the message names each such policy and what is wrong, the hint the
-- lines that mend it. Indexes get lost: an interrupted build, a new partition, a restored dump, a
-- changed predicate; nothing else says so, rows just go ever more slowly. Paused policies are not looked
-- at, and policies that name no table can't be. Changes nothing.

create or replace function lapse.prove_indexes(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
    returns lapse.progress
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_proved   integer;
    v_problems text[];
    v_lines    text[];
begin
    select count(*),
           array_agg(format('policy %s: %s', p.name, i.problem) order by p.name) filter (where i.ok is not true),
           array_agg(i.statement order by p.name) filter (where i.ok is not true and i.statement is not null)
      into v_proved, v_problems, v_lines
      from lapse.policy as p
     cross join lateral lapse.index_proof(p.name) as i
     where p.enabled
       and p.target_table is not null;

    if v_problems is not null then
        raise exception using
            errcode = 'LP030',
            message = array_to_string(v_problems, '; '),
            detail  = format('%s of %s policies have no proof that an index serves them.',
                             cardinality(v_problems), v_proved),
            hint    = coalesce('Send each of these by itself: ' || array_to_string(v_lines, chr(10)),
                               'See lapse.index_proof for each of them.');
    end if;
    return (0, 0, null)::lapse.progress;
end;
$$;

comment on function lapse.prove_indexes(integer, timestamptz, timestamptz) is
    'Step: fails when the statement of an enabled policy is not served by an index, and says what mends it.';
