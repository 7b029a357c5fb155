#!/bin/sh
# Creates Temporal's two databases and brings their schemas to the version of this image.
# Each command leaves alone what is already there. SQL_PASSWORD holds the password.
set -eu

prepare() {
    database=$1
    versions=/etc/temporal/schema/postgresql/v12/$2/versioned
    tool="temporal-sql-tool --plugin postgres12 --ep $POSTGRES_SEEDS --port 5432 --user $POSTGRES_USER"
    $tool --db "$database" create
    $tool --db "$database" setup-schema -v 0.0
    $tool --db "$database" update-schema -d "$versions"
}

prepare "$DBNAME" temporal
prepare "$VISIBILITY_DBNAME" visibility
