-- lapse.drop_attachment_leftovers: drop what an attachment was made of, but for what another is made of.
--
-- In: the table, the trigger function of the one, and the other (NULL: nothing stays). Out: nothing. First the
-- triggers, on the table and its partitions, then the functions.

create or replace function lapse.drop_attachment_leftovers(
    p_target     regclass,
    p_function   oid,
    p_attachment lapse.attachment
)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_stays   oid[] := '{}';
    v_goes    oid[];
    v_command text;
begin
    if p_attachment.function is not null then
        v_stays := array(select f.function
                           from lapse.attachment_family(to_regprocedure(p_attachment.function || '()')) as f
                          where f.part not in ('removed', 'renamed') or p_attachment.removed_column is not null);
    end if;
    v_goes := array(select f.function from lapse.attachment_family(p_function) as f where f.function <> all (v_stays));

    for v_command in
        select format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass)
          from pg_trigger as t
         where t.tgfoid = any (v_goes) and not t.tgisinternal and t.tgparentid = 0
         order by t.tgrelid, t.tgname
    loop
        execute v_command;
    end loop;

    for v_command in
        select format('drop function %s', f.oid::regprocedure) from unnest(v_goes) as f (oid)
    loop
        execute v_command;
    end loop;
end;
$$;

comment on function lapse.drop_attachment_leftovers(regclass, oid, lapse.attachment) is
    'Internal: drop the triggers and functions of an attachment that another one does not share.';
