-- market.live_sessions: the sessions that have not lapsed.
--
-- What market.get_session would find, many at a time, whether or not the sweep has
-- been. Looks into the primary key by token, into sessions_due otherwise.

create or replace view market.live_sessions as
select s.token_hash, s.principal_kind, s.principal_id, s.data, s.created_at, s.expires_at, s.idle_timeout, s.ends_at
  from market.sessions as s
 where s.expires_at > now();

comment on view market.live_sessions is 'Sessions that have not lapsed.';
comment on column market.live_sessions.token_hash is 'Hash of the token that the client shows.';
comment on column market.live_sessions.principal_kind is 'Whose session: user, agent or admin.';
comment on column market.live_sessions.principal_id is 'Which one.';
comment on column market.live_sessions.data is 'Whatever the application keeps with it.';
comment on column market.live_sessions.created_at is 'When it was opened.';
comment on column market.live_sessions.expires_at is 'When it lapses.';
comment on column market.live_sessions.idle_timeout is 'How far a read moves that; NULL: it does not slide.';
comment on column market.live_sessions.ends_at is 'Beyond which no read moves it.';
