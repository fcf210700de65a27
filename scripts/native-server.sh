#!/usr/bin/env bash
# A Postgres 17 with the real pgvector, pg_cron, pgTAP and plpgsql_check, and a redis-server, from Debian's packages.
#   scripts/native-server.sh install DIR        lay Debian trixie's packages into DIR (as root, about 35 s and 700 MB)
#   scripts/native-server.sh start DIR PORT     start a new, empty cluster on 127.0.0.1:PORT; prints its DATABASE_URL
#   scripts/native-server.sh stop DIR PORT      stop it and drop its cluster
# For CI and benchmarks; a user's machine needs none of it. The mirror comes from this machine's apt configuration.
set -euo pipefail

command=${1:?install, start or stop}
root=${2:?folder of the installation}
packages=postgresql-17,postgresql-17-pgvector,postgresql-17-cron,postgresql-17-pgtap,postgresql-17-plpgsql-check,redis-server
bin=/usr/lib/postgresql/17/bin

as_postgres() { chroot "$root" setpriv --reuid postgres --regid postgres --init-groups "$@"; }

case $command in
  install)
    [ -x "$root$bin/postgres" ] && exit 0
    command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap >/dev/null; }
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 -E '/debian/?$')
    rm -rf "$root.part"
    mkdir -p "$(dirname "$root")"
    debootstrap --variant=minbase --include="$packages" trixie "$root.part" "$mirror" >"$root.log" 2>&1 ||
      { tail -n 20 "$root.log" >&2; exit 1; }
    mv "$root.part" "$root"
    ;;
  start)
    port=${3:?port}
    data=/var/lib/postgresql/native-$port
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    printf '%s' "$password" >"$root/tmp/password-$port"
    chmod 644 "$root/tmp/password-$port"
    as_postgres "$bin/initdb" -D "$data" -U postgres --pwfile="/tmp/password-$port" -A scram-sha-256 \
      --encoding=UTF8 --locale=C.UTF-8 >/dev/null
    rm "$root/tmp/password-$port"
    # pg_cron logs in for each run, as on hosted, where nothing asks it for a password.
    as_postgres sh -c 'umask 077; echo "$1" >"$2"' - "127.0.0.1:$port:*:*:$password" "$data.pgpass"
    # max_wal_senders as in the embedded server: the specs start Realtime servers of their own beside the stack's.
    # Without fsync: the cluster is thrown away. synchronous_commit stays on, or logical decoding would lag.
    # plpgsql_check is not preloaded: before 2.8.11 it then fails now and again inside functions it was not asked about
    # ("cannot find parent statement on pldbgapi2 call stack", okbob/plpgsql_check#197), and Debian has 2.8.0.
    as_postgres env PGPASSFILE="$data.pgpass" "$bin/pg_ctl" -D "$data" -w -l "/var/lib/postgresql/native-$port.log" start -o "-p $port \
      -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c shared_preload_libraries=pg_cron \
      -c cron.database_name=postgres -c cron.host=127.0.0.1 -c cron.timezone=GMT -c wal_level=logical \
      -c max_wal_senders=20 -c max_replication_slots=20 -c max_connections=200 -c fsync=off" >/dev/null
    echo "postgresql://postgres:$password@127.0.0.1:$port/postgres"
    ;;
  stop)
    port=${3:?port}
    as_postgres "$bin/pg_ctl" -D "/var/lib/postgresql/native-$port" -m immediate stop >/dev/null || true
    rm -rf "$root/var/lib/postgresql/native-$port" "$root/var/lib/postgresql/native-$port".{log,pgpass}
    ;;
  *)
    echo "unknown command: $command" >&2
    exit 2
    ;;
esac
