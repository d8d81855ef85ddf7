-- lapse.due_function: the function that names the due rows of a declared policy.
--
-- In: a policy. Out: its name, quoted for dynamic SQL: it stands beside the step, in the schema of the
-- table. NULL for a policy whose step was written by hand.

create or replace function lapse.due_function(p_policy lapse.policy)
    returns text
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
    select format('%I.%I', (parse_ident((p_policy).step))[1], lapse.generated_name('due', (p_policy).name))
     where (p_policy).action is not null
$$;

comment on function lapse.due_function(lapse.policy) is
    'The quoted name of the function that names a declared policy''s due rows.';
