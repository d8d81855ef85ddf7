-- market.live_invitation_codes: invitations that have not lapsed and have uses left.
--
-- Whether or not policy expire_invitation_codes has been. Each condition that one
-- adds reaches the table's indexes; without any, invitation_codes_due leads to
-- those that are left.

create or replace view market.live_invitation_codes as
    select i.id, i.code, i.owner_id, i.max_uses, i.use_count, i.valid_until, i.created_at
      from market.invitation_codes as i
     where i.status = 'active'
       and i.use_count < i.max_uses
       and (i.valid_until > now() or i.valid_until is null);

comment on view market.live_invitation_codes is 'Invitations that have not lapsed and have uses left, swept or not.';
comment on column market.live_invitation_codes.id is 'Number of the code.';
comment on column market.live_invitation_codes.code is 'What the invited person types.';
comment on column market.live_invitation_codes.owner_id is 'Who invites; NULL: the marketplace itself.';
comment on column market.live_invitation_codes.max_uses is 'How often it can be used.';
comment on column market.live_invitation_codes.use_count is 'How often it was used.';
comment on column market.live_invitation_codes.valid_until is 'Lapses at this time; NULL: never.';
comment on column market.live_invitation_codes.created_at is 'When it was made.';
