-- lapse.forget_expiry: drops a declared policy whose functions are gone.
--
-- In: its name. Out: nothing; nothing happens where there is no such policy. Authors have no right on lapse.policy; who may drop the policy's
-- functions is the server's to say, so this asks nothing of its caller but that they are not there any more. Raises LP029
-- while they are.

create or replace function lapse.forget_expiry(p_name text)
    returns void
    language plpgsql
    volatile
    security definer  -- authors have no right on lapse.policy
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_policy lapse.policy;
begin
    select p.* into v_policy from lapse.policy as p where p.name = p_name and p.action is not null;
    if not found then
        return;
    end if;
    if exists (select from pg_proc as f
                 join pg_namespace as n on n.oid = f.pronamespace
                where format('%I.%I', n.nspname, f.proname) in (v_policy.step, lapse.due_function(v_policy))) then
        raise exception using
            errcode = 'LP029',
            message = format('the functions of policy %s are still there', p_name),
            hint    = format('As the owner of table %s: select lapse.drop_expiry(%L);', v_policy.target_table, p_name);
    end if;
    perform lapse.drop_policy(p_name);
end;
$$;

comment on function lapse.forget_expiry(text) is
    'Internal: drop a declared policy once its generated functions are gone.';
