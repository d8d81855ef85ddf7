-- mark_experts: an expert of whom something changed is worked out anew.
--
-- After every INSERT and UPDATE of experts that adds one, and every INSERT, UPDATE
-- and DELETE of expert_invitations; before a TRUNCATE of these. Each expert
-- concerned gets a row in market.expert_changes, also one who has a row there
-- already: that one may be settled by a refresh that doesn't see this change. Tasks
-- and reviews are not watched here: market.fold_user_statistics sees all that
-- changes in a user's numbers, and marks those who are experts.

create or replace function market.mark_experts()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may invite an expert needs no right on the marks
    set search_path = pg_catalog, pg_temp
    set jit = off
as $$
begin
    if tg_table_name = 'experts' then
        if tg_op = 'INSERT' then
            insert into market.expert_changes (expert_id)
            select a.user_id from after_experts as a;
        else
            insert into market.expert_changes (expert_id)
            select a.user_id from after_experts as a
            except
            select b.user_id from before_experts as b;
        end if;
    elsif tg_op = 'INSERT' then
        insert into market.expert_changes (expert_id)
        select distinct a.expert_id from after_invitations as a;
    elsif tg_op = 'UPDATE' then
        insert into market.expert_changes (expert_id)
        select distinct c.expert_id
          from ((select a.expert_id, a.invited_at, a.responded_at from after_invitations as a
                 except all
                 select b.expert_id, b.invited_at, b.responded_at from before_invitations as b)
                union all
                (select b.expert_id, b.invited_at, b.responded_at from before_invitations as b
                 except all
                 select a.expert_id, a.invited_at, a.responded_at from after_invitations as a)) as c;
    elsif tg_op = 'DELETE' then
        insert into market.expert_changes (expert_id)
        select distinct b.expert_id from before_invitations as b;
    else
        insert into market.expert_changes (expert_id)
        select distinct i.expert_id from market.expert_invitations as i;
    end if;

    return null;
end;
$$;

comment on function market.mark_experts() is
    'Trigger: note the experts whose invitations changed, and new experts.';

create or replace trigger mark_experts_insert
    after insert on market.experts
    referencing new table as after_experts
    for each statement
    execute function market.mark_experts();

create or replace trigger mark_experts_update
    after update on market.experts
    referencing old table as before_experts new table as after_experts
    for each statement
    execute function market.mark_experts();

create or replace trigger mark_experts_insert
    after insert on market.expert_invitations
    referencing new table as after_invitations
    for each statement
    execute function market.mark_experts();

create or replace trigger mark_experts_update
    after update on market.expert_invitations
    referencing old table as before_invitations new table as after_invitations
    for each statement
    execute function market.mark_experts();

create or replace trigger mark_experts_delete
    after delete on market.expert_invitations
    referencing old table as before_invitations
    for each statement
    execute function market.mark_experts();

create or replace trigger mark_experts_truncate
    before truncate on market.expert_invitations
    for each statement
    execute function market.mark_experts();

comment on trigger mark_experts_insert on market.experts is 'A new expert is worked out.';
comment on trigger mark_experts_update on market.experts is 'So is one who took another''s place.';
comment on trigger mark_experts_insert on market.expert_invitations is 'An invitation changes the share of answers.';
comment on trigger mark_experts_update on market.expert_invitations is 'An answer does, too.';
comment on trigger mark_experts_delete on market.expert_invitations is 'A deleted invitation counts no more.';
comment on trigger mark_experts_truncate on market.expert_invitations is 'TRUNCATE marks all who were invited.';
