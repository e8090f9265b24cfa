-- The roles and schemas of the three services, in the database that psql is connected to.
--
-- Each service logs in as its own role, owns the schema of its own name and can see nothing of the others. Run it with
-- psql as a superuser; again is harmless, and sets the passwords anew:
--
--     PAGEMESH_EXTRACTOR_PASSWORD=… PAGEMESH_SUMMARIZER_PASSWORD=… PAGEMESH_LEDGER_PASSWORD=… \
--         psql --no-psqlrc --dbname=pagemesh --file=roles.sql
--
-- The server has to have pgvector. Its image runs this by itself from /docker-entrypoint-initdb.d. The passwords come
-- through the environment so that they are in no argument list and in no file.

\set ON_ERROR_STOP on
\set QUIET on

\getenv extractor_password PAGEMESH_EXTRACTOR_PASSWORD
\getenv summarizer_password PAGEMESH_SUMMARIZER_PASSWORD
\getenv ledger_password PAGEMESH_LEDGER_PASSWORD

-- A statement that fails must not write its password into the server's log.
SET log_min_error_statement = panic;
SET client_min_messages = warning;

BEGIN;

SELECT format('CREATE ROLE %I LOGIN NOINHERIT CONNECTION LIMIT 60', service)
FROM unnest(ARRAY['extractor', 'summarizer', 'ledger']) AS service
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = service)
\gexec

ALTER ROLE extractor PASSWORD :'extractor_password';
ALTER ROLE summarizer PASSWORD :'summarizer_password';
ALTER ROLE ledger PASSWORD :'ledger_password';

ALTER ROLE extractor SET search_path = extractor;
ALTER ROLE summarizer SET search_path = summarizer;
ALTER ROLE ledger SET search_path = ledger;

CREATE SCHEMA IF NOT EXISTS extractor AUTHORIZATION extractor;
CREATE SCHEMA IF NOT EXISTS summarizer AUTHORIZATION summarizer;
CREATE SCHEMA IF NOT EXISTS ledger AUTHORIZATION ledger;

-- Vectors of pages (pgvector), which only a superuser can add to a database.
CREATE SCHEMA IF NOT EXISTS vectors;
CREATE EXTENSION IF NOT EXISTS vector SCHEMA vectors;
GRANT USAGE ON SCHEMA vectors TO extractor;

REVOKE ALL ON SCHEMA public FROM PUBLIC;

SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database())
\gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO extractor, summarizer, ledger', current_database())
\gexec

COMMIT;
