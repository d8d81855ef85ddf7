-- lapse.check_step: may this function be run as a policy's step?
--
-- In: the step's name, schema.name. Out: the name, quoted for dynamic SQL.
-- Raises LP002 when there is no such function, LP001 when its signature is not
-- (integer, timestamptz, timestamptz) returns lapse.progress, and LP010 when it
-- would run with the engine's rights although somebody else may rewrite it: a
-- step belongs to the owner of schema lapse, or is SECURITY DEFINER. Asked when
-- a policy is made and again by every batch, since functions get replaced.

create or replace function lapse.check_step(p_step text)
    returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    c_arguments constant text := 'integer, timestamp with time zone, timestamp with time zone';
    v_name      text := lapse.quoted_name(p_step);
    v_found     record;
    v_others    text;
begin
    if v_name is null then
        raise exception using
            errcode = 'LP001',
            message = format('"%s" is not the name of a step function', p_step),
            hint    = 'Name it schema.function, without arguments.';
    end if;

    select p.prokind, p.proretset, p.prosecdef, p.proowner, p.prorettype
      into v_found
      from pg_proc as p
     where p.oid = to_regprocedure(format('%s(%s)', v_name, c_arguments));

    if not found then
        select string_agg(p.oid::regprocedure::text, ', ' order by p.oid)
          into v_others
          from pg_proc as p
          join pg_namespace as n on n.oid = p.pronamespace
         where format('%I.%I', n.nspname, p.proname) = v_name;
        if v_others is null then
            raise exception using
                errcode = 'LP002',
                message = format('there is no function %s', v_name),
                hint    = 'Create the step function first: (integer, timestamptz, timestamptz) returns lapse.progress.';
        end if;
        raise exception using
            errcode = 'LP001',
            message = format('step %s has other arguments than a step function', v_name),
            detail  = format('Found: %s.', v_others),
            hint    = 'A step function takes (integer, timestamptz, timestamptz) and returns lapse.progress.';
    end if;

    if v_found.prokind <> 'f' or v_found.proretset or v_found.prorettype <> 'lapse.progress'::regtype then
        raise exception using
            errcode = 'LP001',
            message = format('step %s does not return lapse.progress', v_name),
            hint    = 'A step function takes (integer, timestamptz, timestamptz) and returns one lapse.progress.';
    end if;

    if not v_found.prosecdef
       and v_found.proowner <> (select s.nspowner from pg_namespace as s where s.nspname = 'lapse') then
        raise exception using
            errcode = 'LP010',
            message = format('step %s belongs to %s and would run with the engine''s rights',
                             v_name, v_found.proowner::regrole),
            hint    = 'Make it SECURITY DEFINER, or give it to the owner of schema lapse.';
    end if;

    return v_name;
end;
$$;

comment on function lapse.check_step(text) is
    'The quoted name of a step function; raises LP001, LP002 or LP010 when it may not be run as one.';
