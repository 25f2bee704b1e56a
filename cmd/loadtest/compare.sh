#!/bin/bash
# Compares the node with nats-server: the same driver, the same loads, in alternating rounds. The
# server has CPU 0 for itself and the driver CPU 1; figures are medians over the rounds, CPU in
# microseconds per message.
#
#   cmd/loadtest/compare.sh [--tls] [ROUNDS [SECONDS]]        (default: 5 rounds of 10 s per load)
#
# With --tls, it compares the node with TLS with itself without TLS, and with nats-server with TLS.
# Needs taskset, jq, and bash; with --tls, openssl, too. Ends with 0 whatever the figures are; a run
# that fails ends it.
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=(relay nats) ours=relay
if [ "${1:-}" = --tls ]; then
	peers=(relay relay-tls nats-tls) ours=relay-tls
	shift
fi
rounds=${1:-5} seconds=${2:-10}
loads=("--window=1" "--window=50 --no-ack" "--window=50")
out=$(mktemp -d)
server=
stop() { if [ -n "$server" ]; then kill -INT "$server"; wait "$server" || true; server=; fi; }
trap 'stop; rm -rf "$out"' EXIT

go build -o "$out/relay" ./cmd/relay
go build -o "$out/loadtest" ./cmd/loadtest
GOWORK=off go build -modfile=tools/go.mod -o "$out/nats-server" github.com/nats-io/nats-server/v2

if [ "$ours" = relay-tls ]; then # both servers have the same certificate
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost \
		-addext subjectAltName=IP:127.0.0.1 -keyout "$out/key" -out "$out/cert" 2>"$out/err" || { cat "$out/err" >&2; exit 1; }
fi

start_relay() { # it sets GOMAXPROCS itself; the arguments are further flags
	taskset -c 0 "$out/relay" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --log-format json "$@" 2>"$out/log" >&2 & server=$!
}
start_nats() { # one P is its best on one CPU
	GOMAXPROCS=1 taskset -c 0 "$out/nats-server" -a 127.0.0.1 -p -1 "$@" 2>"$out/log" >&2 & server=$!
}
# start starts the server for a peer, and sets addr and the flags of the driver.
start() {
	local secure=()
	client=(--driver "${1%-tls}")
	case $1 in
	relay-tls) secure=(--tls-cert "$out/cert" --tls-key "$out/key") ;;
	nats-tls) secure=(--tls --tlscert "$out/cert" --tlskey "$out/key") ;;
	esac
	case $1 in *-tls) client+=(--tls --tls-ca "$out/cert") ;; esac
	case $1 in
	relay*)
		start_relay "${secure[@]}"
		addr=$(address '"clients":"127.0.0.1:[0-9]+')
		;;
	nats*)
		start_nats "${secure[@]}"
		addr=$(address 'client connections on 127.0.0.1:[0-9]+')
		;;
	esac
}
# address waits until the server says which port it has got; the pattern's last number is the port.
address() {
	local port
	for _ in $(seq 100); do
		port=$(grep -oE "$1" "$out/log" | head -1 | grep -oE '[0-9]+$') && echo "127.0.0.1:$port" && return
		sleep 0.1
	done
	echo "the server does not say where it listens:" >&2
	cat "$out/log" >&2
	return 1
}

for round in $(seq "$rounds"); do
	for peer in "${peers[@]}"; do
		start "$peer"
		for i in "${!loads[@]}"; do
			# shellcheck disable=SC2086 # a load is several flags
			taskset -c 1 "$out/loadtest" "${client[@]}" --nodes "$addr" --server-pid "$server" --duration "${seconds}s" \
				${loads[$i]} --json "$out/$peer.$i.$round.json" >/dev/null 2>"$out/err" || { cat "$out/err" >&2; exit 1; }
		done
		stop
	done
done

median() { jq -s "map($1) | sort | .[length / 2 | floor]" "${@:2}"; }
printf '%-22s %-9s %12s %10s %10s %12s %12s\n' load server messages/s 'server µs' 'driver µs' 'p50 µs' 'p99 µs'
for i in "${!loads[@]}"; do
	for peer in "${peers[@]}"; do
		files=("$out/$peer.$i."*.json)
		printf '%-22s %-9s %12.0f %10.2f %10.2f %12.0f %12.0f\n' "${loads[$i]}" "$peer" \
			"$(median .rate_per_second "${files[@]}")" "$(median .server_cpu_seconds_per_message*1e6 "${files[@]}")" \
			"$(median .driver_cpu_seconds_per_message*1e6 "${files[@]}")" \
			"$(median .latency_seconds.p50*1e6 "${files[@]}")" "$(median .latency_seconds.p99*1e6 "${files[@]}")"
	done
	for peer in "${peers[@]}"; do
		[ "$peer" != "$ours" ] || continue
		printf '%-22s ratio of server CPU, %s to %s: %.2f\n' "${loads[$i]}" "$ours" "$peer" \
			"$(jq -n "$(median .server_cpu_seconds_per_message*1e6 "$out/$ours.$i."*.json) / $(median .server_cpu_seconds_per_message*1e6 "$out/$peer.$i."*.json)")"
	done
done
