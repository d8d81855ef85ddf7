-- lapse.detach_dropped: clear away what is left of attachments whose table was dropped.
--
-- In: nothing. Out: those tables. Until this is called, none of the files that could have been theirs is deleted: a source
-- that can't answer is never taken for a no. The functions that go are those of attachments that no trigger
-- calls any more, as far as the caller has the rights of their owner. The files of the dropped
-- rows were not queued: DROP TABLE fires no trigger.

create or replace function lapse.detach_dropped()
    returns table (target_table text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_function oid;
begin
    for v_function in
        select p.oid
          from pg_proc as p
         where p.proname like 'lapse\_files\_%'
           and p.prosrc ~ '\n-- Declared: {[^\n]*}\n'
           and pg_has_role(current_user, p.proowner, 'USAGE')
           and not exists (select from pg_trigger as t where t.tgfoid = p.oid and not lapse.on_detached(t.oid))
    loop
        perform lapse.drop_attachment_leftovers(null, v_function, null);
    end loop;

    return query select f.target_table from lapse.forget_attachments() as f;
end;
$$;

comment on function lapse.detach_dropped() is
    'Clear away what is left of attachments whose table was dropped; returns those tables.';
