#!/usr/bin/env bash
# Trains on two hosts that share nothing but a network and a folder: two network namespaces of this machine with a cable
# between them, each with a host name and an address of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    cat <<'TEXT'
usage: bash scripts/drills/two_hosts.sh [--output_dir D] [--sharding deepspeed|fsdp|none]

Needs root and the program ip (Debian, Ubuntu: apt-get install iproute2). With a tiny model, in minutes on 2 CPU cores:
  1. one process trains alone;
  2. two hosts train the same run by scripts/launch_multi_node.sh: the losses must be those of the one process;
  3. a rank of such a run is killed (SIGKILL): both hosts must end within 60 seconds, each with a line that says so;
  4. the same commands go on from the last checkpoint: the losses must be those of the one process again;
  5. the cable between the hosts is cut in mid-run: both hosts must end within 120 seconds, each with a line that says so;
  6. the cable is mended, and the same commands go on to the losses of the one process.
What was seen is printed and kept in D/drill.md (default: results/drills/two_hosts).
TEXT
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

output=results/drills/two_hosts sharding=deepspeed
while (($#)); do
    case $1 in
        --output_dir | --sharding)
            (($# > 1)) || fail "$1 needs a value"
            if [[ $1 == --sharding ]]; then sharding=$2; else output=$2; fi
            shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "$1: no such option" ;;
    esac
    shift
done
[[ $(id -u) == 0 ]] || fail "network namespaces need root"
command -v ip >/dev/null || fail "the program ip is missing: apt-get install iproute2"
[[ ! -e $output ]] || fail "$output is there already: delete it, or choose another --output_dir"
[[ -x .venv/bin/python ]] || bash scripts/setup.sh --no_model
mkdir -p "$output"
output=$(cd "$output" && pwd)
report=$output/drill.md

say() { printf '%s\n' "$*" | tee -a "$report"; }

# -- the two hosts -----------------------------------------------------------------------------------------------

hosts=("alpha$$" "beta$$") addresses=(10.213.7.1 10.213.7.2)
# shellcheck disable=SC2317  # the trap calls it
take_down() {
    local host
    for host in "${hosts[@]}"; do
        ip netns pids "$host" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
        ip netns delete "$host" 2>/dev/null || true
        rm -rf "/etc/netns/$host"
    done
}
trap take_down EXIT
for host in "${hosts[@]}"; do
    ip netns add "$host"
    ip -n "$host" link set lo up
    # Each host knows itself and the other by name, as a cluster's name service would tell.
    mkdir -p "/etc/netns/$host"
    printf '127.0.0.1 localhost\n%s %s\n%s %s\n' "${addresses[0]}" "${hosts[0]}" "${addresses[1]}" "${hosts[1]}" \
        >"/etc/netns/$host/hosts"
done
ip link add "cable$$" netns "${hosts[0]}" type veth peer name "cable$$" netns "${hosts[1]}"
for number in 0 1; do
    ip -n "${hosts[number]}" address add "${addresses[number]}/24" dev "cable$$"
    ip -n "${hosts[number]}" link set "cable$$" up
done

export CUDA_VISIBLE_DEVICES="" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 MIXED_PRECISION=no
export NNODES=2 HEAD_ADDR=${hosts[0]} GPUS_PER_NODE=1 SHARDING=$sharding

# on NUMBER COMMAND...: runs a command on a host.
on() {
    local number=$1
    shift
    # shellcheck disable=SC2016  # the inner shell expands them
    exec ip netns exec "${hosts[number]}" unshare --uts bash -c 'hostname "$1"; shift; exec "$@"' - "${hosts[number]}" "$@"
}

# start NAME ARGUMENT...: both hosts' part of a run; their process ids go into `started`.
start() {
    local name=$1 number
    shift
    started=()
    for number in 0 1; do
        (NODE_RANK=$number on "$number" bash scripts/launch_multi_node.sh --output_dir "$output/$name" "${run[@]}" "$@") \
            >>"$output/$name.host$number.log" 2>&1 &
        started+=($!)
    done
}

# ends: waits for both and puts their exit codes into `codes`.
ends() {
    local each code
    codes=()
    for each in "${started[@]}"; do
        code=0
        wait "$each" || code=$?
        codes+=("$code")
    done
}

# steps NAME: how many steps a run has done.
steps() { { grep '"loss"' "$output/$1/metrics.jsonl" 2>/dev/null || true; } | wc -l; }

# until_steps NAME NUMBER: waits for them.
until_steps() {
    until (($(steps "$1") >= $2)); do
        kill -0 "${started[@]}" 2>/dev/null || fail "the run ended by itself: see $output/$1.host0.log"
        sleep 0.1
    done
}

# last_words NAME NUMBER: what a host said at the end: ours where it has any, else torch's own line.
last_words() {
    grep -aoE '^error: .*|Signal [0-9]+ .* received by PID [0-9]+' "$output/$1.host$2.log" | tail -n 1
}

# -- the drill ---------------------------------------------------------------------------------------------------

model=$output/model
.venv/bin/python src/make_tiny_model.py --output_dir "$model" >"$output/model.log"
run=(--model_name_or_path "$model" --train_file data/sample/brief_answers_train.jsonl --use_lm_loss --packing
    --max_train_steps 40 --per_device_train_batch_size 4 --learning_rate 1e-3 --checkpointing_steps 5 --save_total_limit 2)

say "$(date -u +%F), $(uname -sr), $(nproc --all) cores, $(.venv/bin/python --version), torch $(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch"))'), sharding: $sharding"
begun=$SECONDS
.venv/bin/python src/finetune.py --output_dir "$output/one" "${run[@]}" --per_device_train_batch_size 8 >"$output/one.log" 2>&1 ||
    fail "the run of one process failed: see $output/one.log"
say "one process: $(steps one) steps in $((SECONDS - begun)) s"

begun=$SECONDS
start two
ends
[[ ${codes[*]} == "0 0" ]] || fail "the two hosts ended with ${codes[*]}: see $output/two.host0.log and $output/two.host1.log"
say "two hosts, ${hosts[0]} (${addresses[0]}) and ${hosts[1]} (${addresses[1]}): $(steps two) steps in $((SECONDS - begun)) s; $(.venv/bin/python scripts/drills/same_losses.py "$output/one" "$output/two")"

start killed
until_steps killed 12
victim=$(.venv/bin/python scripts/drills/find_rank.py 1 $(ip netns pids "${hosts[1]}"))
kill -9 "$victim"
begun=$SECONDS
at=$(steps killed)
ends
took=$((SECONDS - begun))
say "rank 1 on ${hosts[1]} killed after $at steps: both hosts ended within $took s, with exit codes ${codes[*]}"
((took <= 60)) && ((codes[0] && codes[1])) || fail "that took longer than 60 s, or a host ended with code 0"
for number in 0 1; do
    words=$(last_words killed "$number")
    [[ -n $words ]] || fail "${hosts[number]} said nothing of it: see $output/killed.host$number.log"
    say "  ${hosts[number]}: $words"
done

start killed
ends
[[ ${codes[*]} == "0 0" ]] || fail "the same commands ended with ${codes[*]}: see $output/killed.host0.log"
say "the same commands again: $(grep -ao 'resuming from [^ ]*' "$output/killed/train.log" | tail -n 1 | sed "s|$output/||"); $(.venv/bin/python scripts/drills/same_losses.py "$output/one" "$output/killed")"

start cut
until_steps cut 12
ip -n "${hosts[1]}" link set "cable$$" down
begun=$SECONDS
at=$(steps cut)
(sleep 300; kill -9 "${started[@]}" 2>/dev/null) &
patience=$!
ends
kill "$patience" 2>/dev/null || true
took=$((SECONDS - begun))
say "the cable between the hosts cut after $at steps: both hosts ended within $took s, with exit codes ${codes[*]}"
for number in 0 1; do say "  ${hosts[number]}: $(last_words cut "$number")"; done
((took <= 120)) && ((codes[0] && codes[1])) || fail "that took longer than 120 s, or a host ended with code 0"
for number in 0 1; do
    grep -qa 'has been silent for' "$output/cut.host$number.log" || fail "${hosts[number]} did not say it: see $output/cut.host$number.log"
done
ip -n "${hosts[1]}" link set "cable$$" up
start cut
ends
[[ ${codes[*]} == "0 0" ]] || fail "the same commands ended with ${codes[*]}: see $output/cut.host0.log"
say "the cable mended, the same commands again: $(grep -ao 'resuming from [^ ]*' "$output/cut/train.log" | tail -n 1 | sed "s|$output/||"); $(.venv/bin/python scripts/drills/same_losses.py "$output/one" "$output/cut")"
say "passed ($SECONDS s)"
