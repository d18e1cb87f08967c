-- What package pgstore of ampauth needs: one table with a row for each account. A Store needs
-- SELECT, INSERT, UPDATE and DELETE on it, and USAGE on its schema.
CREATE TABLE IF NOT EXISTS ampauth_tokens (
	key          text PRIMARY KEY, -- a hash of the base URL and the user name
	record       bytea,            -- the token, in clear unless there is a Sealer
	expires_at   timestamptz,      -- of the token; null: it has no end
	holder       text,             -- the name under which the lock was taken last
	holder_until timestamptz,      -- how long that name is kept
	lease_until  timestamptz,      -- until then the lock is the holder's
	paused_until timestamptz       -- until then nobody logs in
) WITH (fillfactor = 50);
