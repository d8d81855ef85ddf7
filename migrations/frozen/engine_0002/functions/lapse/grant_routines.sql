-- lapse.grant_routines: let a role call some of the engine's routines.
--
-- In: the role and the routines' names. LP001 for no role or PUBLIC, LP002 for a role that
-- does not exist. Usage of the schema comes with it. Runs with the caller's own rights, so
-- only who may grant can. LP002, too, for a routine that does not exist.

create or replace function lapse.grant_routines(p_role name, p_names name[])
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_name    name;
    v_routine regprocedure;
begin
    if p_role is null or p_role = 'public' then
        raise exception 'rights are granted to a role, not to %', coalesce(p_role, 'NULL')
            using errcode = 'LP001', hint = 'Give the name of one role.';
    end if;

    if not exists (select from pg_roles as r where r.rolname = p_role) then
        raise exception 'there is no role %', p_role
            using errcode = 'LP002', hint = format('Create it first: create role %I login.', p_role);
    end if;

    execute format('grant usage on schema lapse to %I', p_role);

    foreach v_name in array p_names loop
        for v_routine in
            select p.oid::regprocedure
              from pg_proc as p
             where p.pronamespace = 'lapse'::regnamespace and p.proname = v_name
        loop
            execute format('grant execute on routine %s to %I', v_routine, p_role);
        end loop;

        if not found then
            raise exception 'there is no routine lapse.%', v_name
                using errcode = 'LP002', hint = 'The engine is incomplete: run pglapse upgrade.';
        end if;
    end loop;
end;
$$;

comment on function lapse.grant_routines(name, name[]) is
    'Internal: grant usage of schema lapse and execution of the named routines to a role.';
