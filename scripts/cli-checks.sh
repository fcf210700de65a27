#!/usr/bin/env bash
# The real Supabase CLI, without Docker, against a Postgres 17 with the real extensions, named by DATABASE_URL:
# db push, migration list, db lint, db advisors without a warning, gen types equal to the committed file. And, since the server
# is fresh, whether pg_cron finds the jobs of the migrations by itself.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$(mktemp -u /var/tmp/cli-checks-XXXXXX)
cli() { npx --no supabase -- "$@"; }

# An own stack on that server gives the platform (roles, schemas, stand-ins); `cli` is a database with nothing of ours in it.
node supabase/local/start.mjs --port 0 --data "$data" --quiet >"$data.out" 2>"$data.err" &
stack=$!
trap 'kill -TERM $stack 2>/dev/null; wait $stack 2>/dev/null; rm -rf "$data" "$data.out" "$data.err"' EXIT
for _ in $(seq 300); do grep -q '^ready' "$data.out" && break; kill -0 $stack || { cat "$data.err"; exit 1; }; sleep 0.2; done
url=$(npx --no deno -- run -A supabase/local/prepare.ts "$data/stack.json" cli --bootstrap-only)

export PROJECT_URL=http://127.0.0.1:54321 WORKER_URL=http://127.0.0.1:54321/functions/v1/worker WORKER_SECRET=not-a-secret
echo '- db push'
cli db push --remote="$url" --yes
cli migration list --remote="$url"
echo '- db lint'
cli db lint --remote="$url" --schema public,service,private,admin --level warning --fail-on warning
echo '- db advisors'
node scripts/advisors.mjs "$data/stack.json" cli
echo '- gen types'
node scripts/types.mjs --check "$url"
echo '- pg_cron'
node scripts/cron-runs.mjs "$data/stack.json"
