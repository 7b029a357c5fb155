#!/bin/sh
# Runs once, when the database directory is empty: a login and a database for AlphaLab, and a
# login for Temporal, which creates its databases itself.
set -eu

psql --username "$POSTGRES_USER" --set ON_ERROR_STOP=1 \
    --set alphalab_password="$ALPHALAB_DATABASE_PASSWORD" \
    --set temporal_password="$TEMPORAL_DATABASE_PASSWORD" <<'SQL'
-- The first migration creates the roles that requests run as, one of them past row-level security.
CREATE ROLE alphalab LOGIN CREATEROLE BYPASSRLS PASSWORD :'alphalab_password';
CREATE ROLE temporal LOGIN CREATEDB PASSWORD :'temporal_password';
CREATE DATABASE alphalab OWNER alphalab;
REVOKE CONNECT ON DATABASE alphalab FROM PUBLIC;
SQL
