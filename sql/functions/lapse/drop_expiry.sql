-- lapse.drop_expiry: let rows of a table be.
--
-- In: the name of a policy that lapse.create_expiry has made; whether it is fine if there is none. Out: nothing. Its functions go with
-- it; its history stays until it is pruned, and so does an index that was built for it, which is the table's.
-- Raises LP002 for an unknown policy, LP001 for one whose step was written by hand, LP022 for somebody else's. A batch
-- under way is waited for. The table need not be there any more.

create or replace function lapse.drop_expiry(p_name text, p_if_exists boolean default false)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_known    record;
    v_function record;
begin
    select * into v_known from lapse.declared_expiry(p_name);
    if v_known.declared is null then
        if p_if_exists then
            raise notice 'there is no policy %: nothing done', coalesce(p_name, 'NULL');
            return;
        end if;
        raise exception using
            errcode = 'LP002',
            message = format('there is no policy %s', coalesce(p_name, 'NULL')),
            hint    = 'See lapse.policy_status for the names, or add p_if_exists => true.';
    elsif not v_known.declared then
        raise exception using
            errcode = 'LP001',
            message = format('policy %s was not made by lapse.create_expiry', p_name),
            hint    = format('select lapse.drop_policy(%L);', p_name);
    end if;

    for v_function in
        select p.oid::regprocedure as name, p.proowner::regrole as owner, pg_has_role(p.proowner, 'USAGE') as mine
          from pg_proc as p
          join pg_namespace as n on n.oid = p.pronamespace
         where format('%I.%I', n.nspname, p.proname) in (v_known.step, v_known.due)
            -- They go with a schema that is renamed. Each says itself whose it is, and nobody else's counts.
            or pg_has_role(p.proowner, 'USAGE')
               and (p.proname = lapse.generated_name('expire', p_name)
                    and starts_with(obj_description(p.oid, 'pg_proc'), format('Step of policy %s, made by lapse.create_expiry.', p_name))
                    or p.proname = lapse.generated_name('due', p_name)
                    and starts_with(obj_description(p.oid, 'pg_proc'), 'What lapse.create_expiry was told: {')
                    and strpos(obj_description(p.oid, 'pg_proc'), format('"name": "%s"', p_name)) > 0)
    loop
        if not v_function.mine then
            raise exception using
                errcode = 'LP022',
                message = format('policy %s: table %s and its step belong to role %s', p_name, v_known.target, v_function.owner),
                hint    = format('Only its owner decides what lapses: drop it as role %s.', v_function.owner);
        end if;
        execute format('drop function %s', v_function.name);
    end loop;
    perform lapse.forget_expiry(p_name);
end;
$$;

comment on function lapse.drop_expiry(text, boolean) is
    'Drop a declared policy with the functions that were made for it; its history and its index stay.';
