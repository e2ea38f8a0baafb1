#!/usr/bin/env bash
# Faults under a run: a disk that fills up, a damaged checkpoint, a rank that dies, a clock that jumps, a data file that vanishes, a
# link that leads to itself, judges that stall or lie. Each must end in one clear line, or as if nothing had been.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    cat <<'TEXT'
usage: bash scripts/drills/faults.sh [--output_dir D] [--only NAME[,NAME...]]

Names: disk, checkpoint, rank, clock, data, judge (default: all). Needs root (for a disk of 5 MB) and libfaketime (Debian, Ubuntu:
apt-get install faketime). A tiny model, minutes on a CPU.
What was seen is printed as rows of tables and kept in D/drill.md (default: results/drills/faults).
TEXT
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

output=results/drills/faults only=disk,checkpoint,rank,clock,data,judge
while (($#)); do
    case $1 in
        --output_dir | --only)
            (($# > 1)) || fail "$1 needs a value"
            if [[ $1 == --only ]]; then only=$2; else output=$2; fi
            shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "$1: no such option" ;;
    esac
    shift
done
[[ $(id -u) == 0 ]] || fail "mounting a small disk needs root"
faketime=$(find /usr/lib /usr/local/lib -name libfaketimeMT.so.1 -print -quit 2>/dev/null)
[[ -n $faketime ]] || fail "libfaketime is missing: apt-get install faketime"
[[ ! -e $output ]] || fail "$output is there already: delete it, or choose another --output_dir"
[[ -x .venv/bin/python ]] || bash scripts/setup.sh --no_model
mkdir -p "$output/small"
output=$(cd "$output" && pwd)
trap 'umount "$output/small" 2>/dev/null || true' EXIT
export CUDA_VISIBLE_DEVICES="" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

say() { printf '%s\n' "$*" | tee -a "$output/drill.md"; }
asked_for() { [[ ,$only, == *,$1,* ]]; }

# train NAME ARGUMENT...: a run into D/NAME by $python; its exit code goes into `code`, its seconds into `took`, what it says into
# D/NAME.log.
python=(.venv/bin/python)
train() {
    local name=$1 begun=$SECONDS
    shift
    code=0
    mkdir -p "$(dirname "$output/$name")"
    "${python[@]}" src/finetune.py --model_name_or_path "$output/model" --train_file "$output/rows.jsonl" \
        --output_dir "$output/$name" --use_lm_loss --packing --max_train_steps 8 --checkpointing_steps 2 --save_total_limit 3 \
        --resume_from_checkpoint latest "$@" >"$output/$name.log" 2>&1 || code=$?
    took=$((SECONDS - begun))
    echo "$code" >"$output/$name.code"
    # The launcher of several processes tells of a failed one in its own way.
    [[ ${python[0]} == *torchrun ]] || ! grep -q '^Traceback' "$output/$name.log" || fail "a traceback: see $output/$name.log"
}

# ends NAME: waits for a `train` in the background.
ends() {
    local begun=$SECONDS
    wait $! || fail "see $output/$1.log"
    code=$(cat "$output/$1.code") took=$((SECONDS - begun))
}
# until_step NAME NUMBER: waits until a run in the background has done so many steps.
until_step() {
    until grep -qs "\"step\": $2[,}]" "$output/$1/metrics.jsonl"; do
        kill -0 $! 2>/dev/null || fail "$1 does not reach step $2: see $output/$1.log"
        sleep 0.02
    done
}
# row FAULT OUTCOME: a row of the table, of the last `train`.
row() { say "| $1 | $code | $took | $2 |"; }
# fails: the last run must have ended with exit code 2 and a line.
fails() { ((code == 2)) || fail "exit code $code, not 2: see $output"; }
# same NAME [OTHER]: its weights are those of the run that was left alone.
same() {
    ((code == 0)) || fail "$1: exit code $code: see $output/$1.log"
    cmp -s "$output/${2:-alone}/model.safetensors" "$output/$1/model.safetensors" || fail "$1: other weights"
    echo "the undisturbed weights, to the bit"
}
# line NAME [PATTERN]: the last line that a run said of that kind, without this machine's paths.
line() {
    local found
    found=$(grep -aE "${2:-^error: }" "$output/$1.log" | tail -n 1 | sed -E "s|$output/||g; s|^[0-9:]+ ||")
    [[ -n $found ]] || fail "nothing was said of it: see $output/$1.log"
    printf '`%s`' "$found"
}

say "$(date -u +%F), $(uname -sr), $(nproc --all) cores, load $(cut -d' ' -f1 /proc/loadavg)"
say "| fault | exit code | seconds | outcome |"
say "|---|---|---|---|"
.venv/bin/python src/make_tiny_model.py --output_dir "$output/model" >/dev/null
cp data/sample/brief_answers_train.jsonl "$output/rows.jsonl"
train alone
((code == 0)) || fail "the undisturbed run failed: $output/alone.log"
row "none" "8 steps"

if asked_for disk; then
    mount -t tmpfs -o size=5m drill "$output/small"
    train small/run
    fails
    row "a disk of 5 MB" "$(line small/run)"
    mount -o remount,size=500m "$output/small"
    train small/run
    row "the same command once there is room" "$(same small/run)"
fi

if asked_for checkpoint; then
    # One folder for each: a byte changed, a file cut off, a file gone; the newest checkpoint, then all of them.
    for damage in changed cut gone; do
        cp -r "$output/alone" "$output/$damage"
        rm "$output/$damage/model.safetensors"
        largest=$(ls -S "$output/$damage/step_8"/* | head -n 1)
        case $damage in
            changed) printf 'X' | dd of="$largest" bs=1 seek=2000 conv=notrunc status=none ;;
            cut) truncate --size=-1000 "$largest" ;;
            gone) rm "$largest" ;;
        esac
        train "$damage" --overwrite_output
        row "the newest checkpoint damaged: a file ${damage/changed/with one byte changed}" "$(line "$damage" 'skipping a checkpoint'); $(same "$damage")"
    done
    rm "$output/changed/model.safetensors"
    for folder in "$output"/changed/step_*; do : >"$folder/checkpoint.json"; done
    train changed --overwrite_output
    row "every checkpoint's manifest empty" "$(line changed 'no checkpoint in|skipping a checkpoint'); $(same changed)"
    train changed --overwrite_output --resume_from_checkpoint "$output/model"
    fails
    row "a folder named as a checkpoint that is none" "$(line changed)"
fi

if asked_for rank; then
    python=(.venv/bin/torchrun --nproc_per_node 2 --master_port $((20000 + $$ % 20000)))
    two=(--max_train_steps 40 --per_device_train_batch_size 1)
    train pair "${two[@]}"
    ((code == 0)) || fail "the undisturbed run of two processes failed: $output/pair.log"
    train killed "${two[@]}" &
    until_step killed 5
    # shellcheck disable=SC2046  # ids
    kill -9 "$(.venv/bin/python scripts/drills/find_rank.py 1 $(pgrep -f "finetune.py.*--output_dir $output/killed "))"
    ends killed
    ((code)) || fail "a run whose process was killed ended well"
    row "one process of two killed (SIGKILL; seconds since then)" "$(line killed '^error: |Signal 9' | sed -E 's/PID [0-9]+/PID …/')"
    cp "$output/killed.log" "$output/killed.first.log"
    train killed "${two[@]}"
    row "the same command again" "$(line killed 'resuming from'); $(same killed pair)"
    python=(.venv/bin/python)
fi

if asked_for clock; then
    # Real clocks jump and the monotonic one does not; the library reads the file anew for each question.
    printf '@2001-01-01 00:00:00' >"$output/now"
    python=(env "LD_PRELOAD=$faketime" FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1 "FAKETIME_TIMESTAMP_FILE=$output/now" .venv/bin/python)
    train clock &
    step=1
    for when in '@2036-06-01 12:00:00' '@1999-12-31 23:59:58' '@2026-01-01 00:00:00'; do
        until_step clock "$step"
        printf '%s' "$when" >"$output/now"
        step=$((step + 2))
    done
    ends clock
    python=(.venv/bin/python)
    row "the clock jumps in mid-run: 2001, 2036, 1999, 2026 (seconds since the last)" \
        "$(same clock); $(.venv/bin/python scripts/drills/sane_times.py "$output/clock")"
fi

if asked_for data; then
    train vanished &
    until_step vanished 2
    mv "$output/rows.jsonl" "$output/rows.away"
    ends vanished
    if [[ -e $output/vanished/model.safetensors ]]; then
        row "the data file deleted in mid-run" "$(same vanished)"
    else
        row "the data file deleted in mid-run" "$(line vanished)"
    fi
    train gone_before
    fails
    row "the data file gone before the start" "$(line gone_before)"
    ln -s rows.jsonl "$output/rows.jsonl"
    train loop
    fails
    row "the data file a link to itself" "$(line loop)"
    rm "$output/rows.jsonl"
    mv "$output/rows.away" "$output/rows.jsonl"
    ln -s self "$output/self"
    train self
    fails
    row "the output folder a link to itself" "$(line self)"
fi

if asked_for judge; then
    say ""
    say "| judge | exit code | seconds | what was said |"
    say "|---|---|---|---|"
    .venv/bin/python scripts/drills/judges.py "$output/judges" | tee -a "$output/drill.md"
fi
say "passed ($SECONDS s)"
