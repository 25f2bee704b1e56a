#!/bin/bash
# Compares two nodes with one: what a message costs that goes from a client of one to a client of the other, in CPU of both,
# beside one between two clients of the same node. Alternating rounds; the servers have CPU 0 for themselves and the driver
# CPU 1; figures are medians over the rounds, microseconds per message.
#
#   cmd/loadtest/compare-nodes.sh [ROUNDS [SECONDS]]        (default: 5 rounds of 5 s per load)
#
# Needs taskset, jq, redis-server, bash, and ports 7450 to 7479. Ends with 0 whatever the figures are; a run that fails ends it.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5} seconds=${2:-5}
loads=("--window=1" "--window=50 --no-ack" "--window=50")
out=$(mktemp -d)
pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid"; wait "$pid" || true; done; pids=(); }
redis=
trap 'stop; [ -z "$redis" ] || kill "$redis"; rm -rf "$out"' EXIT

go build -o "$out/relay" ./cmd/relay
go build -o "$out/loadtest" ./cmd/loadtest
(umask 077; head -c 32 /dev/urandom | base64 >"$out/secret")

c1=127.0.0.1:7450 p1=127.0.0.1:7452 c2=127.0.0.1:7460 p2=127.0.0.1:7462 # for clients and for each other
redis-server --bind 127.0.0.1 --port 7479 --save '' --dir "$out" >/dev/null & redis=$!

launch() { # flags...: a node with one event loop
	taskset -c 0 "$out/relay" --admin-listen none --loops 1 "$@" >"$out/log.${#pids[@]}" 2>&1 & pids+=($!)
}
launch_one() { launch --listen $c1; }
launch_two() {
	local shared=(--registry redis://127.0.0.1:7479 --cluster-secret-file "$out/secret")
	launch "${shared[@]}" --node-id a --listen $c1 --peer-listen $p1 --peers b=$c2/$p2
	launch "${shared[@]}" --node-id b --listen $c2 --peer-listen $p2 --peers a=$c1/$p1
}
ready() { # each node says so
	for i in "${!pids[@]}"; do
		for _ in $(seq 100); do
			if grep -q 'relay serves' "$out/log.$i"; then continue 2; fi
			sleep 0.1
		done
		cat "$out/log.$i" >&2
		return 1
	done
}
cpu() { local sum=0; for pid in "${pids[@]}"; do sum=$((sum + $(awk '{print $14 + $15}' "/proc/$pid/stat"))); done; echo "$sum"; }

tick=$((1000000 / $(getconf CLK_TCK))) # microseconds
for round in $(seq "$rounds"); do
	for what in one two; do
		"launch_$what"
		ready
		for i in "${!loads[@]}"; do
			flags=(--nodes $c1)
			[ $what = one ] || flags=(--nodes $c1,$c2 --cross 1)
			before=$(cpu)
			# shellcheck disable=SC2086 # a load is several flags
			taskset -c 1 "$out/loadtest" "${flags[@]}" --duration "${seconds}s" ${loads[$i]} --json "$out/report" >/dev/null 2>"$out/err" ||
				{ cat "$out/err" >&2; exit 1; }
			jq "($(cpu) - $before) * $tick / .sent" "$out/report" >>"$out/$what.$i"
		done
		stop
	done
done

median() { jq -s 'sort | .[length / 2 | floor]' "$1"; }
printf '%-22s %12s %12s %8s\n' load 'one node µs' 'two nodes µs' ratio
for i in "${!loads[@]}"; do
	printf '%-22s %12.2f %12.2f %8.2f\n' "${loads[$i]}" "$(median "$out/one.$i")" "$(median "$out/two.$i")" \
		"$(jq -n "$(median "$out/two.$i") / $(median "$out/one.$i")")"
done
