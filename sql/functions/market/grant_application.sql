-- market.grant_application: what the marketplace's application may do.
--
-- In: a role. It may read and write the tables (what is counted, the ledger, the
-- balances and the events of chats it may only read: triggers write them) and call
-- the guarded operations. Of schema lapse it gets one function, lapse.path_digest:
-- whoever inserts into task_files runs what its index is made of. Triggers queue
-- files with the rights of their owner.
-- Callable again and again. Raises LP108 for NULL or PUBLIC, LP101 for an unknown role.

create or replace function market.grant_application(p_role name)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_command text;
begin
    if p_role is null or p_role = 'public' then
        raise exception 'grant_application was given %', coalesce(p_role, 'NULL')
            using errcode = 'LP108', hint = 'Name one role.';
    elsif not exists (select from pg_roles as r where r.rolname = p_role) then
        raise exception 'role % is unknown', p_role
            using errcode = 'LP101', hint = format('Create it first: create role %I login.', p_role);
    end if;

    foreach v_command in array array[
        'grant usage on schema market to %I',
        'grant select on all tables in schema market to %I',
        'grant insert, update, delete on market.users, market.pending_users, market.coupons,'
            ' market.invitation_codes, market.point_grants, market.tasks, market.task_files to %I',
        'grant insert, update, delete on market.temp_uploads, market.reviews, market.experts,'
            ' market.expert_invitations to %I',
        'grant execute on function market.redeem_coupon, market.use_invitation_code, market.grant_points,'
            ' market.spend_points, market.point_balance, market.verify_pending_user, market.complete_task,'
            ' market.cancel_task, market.reopen_task, lapse.path_digest to %I',
        'grant insert, update, delete on market.sessions, market.cache_entries, market.agents, market.chats,'
            ' market.chat_messages to %I',
        'grant execute on function market.open_session, market.get_session, market.end_session,'
            ' market.put_cache, market.get_cache, market.open_chat, market.post_message, market.end_chat,'
            ' market.set_agent_online, market.chat_events_after to %I',
        'grant execute on function market.create_task, market.get_task, market.register_temp_upload to %I'
    ] loop
        execute format(v_command, p_role);
    end loop;
end;
$$;

comment on function market.grant_application(name) is
    'Let a role use the marketplace: its tables, and the guarded operations.';
