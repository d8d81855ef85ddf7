-- lapse.enable_expiry: pause or resume a declared policy, as the owner of its table.
--
-- In: its name, and whether it is to run. Out: nothing. lapse.pause and lapse.resume are for the engine's owner; this is the author's own
-- way: what the policy is stands in the comment of its function, which only the function's owner may change. Raises
-- LP002 for an unknown policy, LP001 for one whose step was written by hand, LP022 for somebody else's.

create or replace function lapse.enable_expiry(p_name text, p_enabled boolean default true)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_known record;
    v_due   record;
begin
    select * into v_known from lapse.declared_expiry(p_name);
    if v_known.declared is not true or p_enabled is null then
        raise exception using
            errcode = case when v_known.declared is null and p_enabled is not null then 'LP002' else 'LP001' end,
            message = case when p_enabled is null then 'p_enabled may not be NULL'
                           when v_known.declared is null then format('there is no policy %s', coalesce(p_name, 'NULL'))
                           else format('policy %s was not made by lapse.create_expiry', p_name) end,
            hint    = 'See lapse.policy_status for the names; lapse.pause and lapse.resume do for any policy.';
    end if;
    select p.oid::regprocedure as name, p.proowner::regrole as owner, pg_has_role(p.proowner, 'USAGE') as mine,
           obj_description(p.oid, 'pg_proc') as said
      into v_due
      from pg_proc as p
      join pg_namespace as n on n.oid = p.pronamespace
     where format('%I.%I', n.nspname, p.proname) = v_known.due;
    if v_due.mine is not true then
        raise exception using
            errcode = 'LP022',
            message = format('policy %s: table %s belongs to %s', p_name, v_known.target, coalesce(v_due.owner::text, 'nobody: its functions are gone')),
            hint    = 'Only its owner decides what lapses; the engine''s owner has lapse.pause and lapse.resume.';
    end if;
    execute format('comment on function %s is %L', v_due.name,
                   'What lapse.create_expiry was told: '
                   || jsonb_set(substring(v_due.said from '\{.*\}')::jsonb, '{policy,enabled}', to_jsonb(p_enabled))::text);
    perform lapse.enter_expiry(v_due.name, true);
end;
$$;

comment on function lapse.enable_expiry(text, boolean) is
    'Pause or resume a declared policy, as the owner of its table.';
