#!/usr/bin/env bash
# Faults of the machine under a run: a disk that fills up, a checkpoint that is damaged, a clock that jumps, a data file that
# vanishes, a link that leads to itself. Each run must end in one clear line, or with the weights of the run that was left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    cat <<'TEXT'
usage: bash scripts/drills/faults.sh [--output_dir D]

Needs root (for a disk of 5 MB) and the program faketime (Debian, Ubuntu: apt-get install faketime). A tiny model, minutes on a CPU.
What was seen is printed and kept in D/drill.md (default: results/drills/faults).
TEXT
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

output=results/drills/faults
while (($#)); do
    case $1 in
        --output_dir)
            (($# > 1)) || fail "$1 needs a value"
            output=$2
            shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "$1: no such option" ;;
    esac
    shift
done
[[ $(id -u) == 0 ]] || fail "mounting a small disk needs root"
command -v faketime >/dev/null || fail "the program faketime is missing: apt-get install faketime"
[[ ! -e $output ]] || fail "$output is there already: delete it, or choose another --output_dir"
[[ -x .venv/bin/python ]] || bash scripts/setup.sh --no_model
mkdir -p "$output/small"
output=$(cd "$output" && pwd)
trap 'umount "$output/small" 2>/dev/null || true' EXIT
export CUDA_VISIBLE_DEVICES="" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

say() { printf '%s\n' "$*" | tee -a "$output/drill.md"; }

# train NAME ARGUMENT...: a run into D/NAME by $before; its exit code goes into `code`, what it says into D/NAME.log.
before=()
train() {
    local name=$1
    shift
    code=0
    "${before[@]}" .venv/bin/python src/finetune.py --model_name_or_path "$output/model" --train_file "$output/rows.jsonl" \
        --output_dir "$output/$name" --use_lm_loss --packing --max_train_steps 8 --checkpointing_steps 2 --save_total_limit 1 \
        --resume_from_checkpoint latest "$@" >>"$output/$name.log" 2>&1 || code=$?
    ! grep -q '^Traceback' "$output/$name.log" || fail "a traceback: see $output/$name.log"
}

# same NAME: its weights are those of the run that was left alone.
same() { cmp -s "$output/alone/model.safetensors" "$output/$1/model.safetensors" && echo "the undisturbed weights to the bit" || fail "$1: other weights"; }

last() { grep -a '^error: ' "$output/$1.log" | tail -n 1 | sed "s|$output/||g"; }

say "$(date -u +%F), $(uname -sr), $(nproc --all) cores"
.venv/bin/python src/make_tiny_model.py --output_dir "$output/model" >/dev/null
cp data/sample/brief_answers_train.jsonl "$output/rows.jsonl"
train alone
((code == 0)) || fail "the undisturbed run failed: $output/alone.log"

mount -t tmpfs -o size=5m drill "$output/small"
train small/run
((code)) || fail "a run of more than 5 MB ended well on a disk of 5 MB"
say "full disk: exit code $code; $(last small/run)"
mount -o remount,size=500m "$output/small"
train small/run
say "  with room: exit code $code, $(same small/run)"

train bitten --max_train_steps 4 --overwrite_output
rm -f "$output/bitten/model.safetensors"
checkpoint=$(ls -d "$output"/damaged/step_* | tail -n 1)
largest=$(ls -S "$checkpoint"/* | head -n 1)
printf 'X' | dd of="$largest" bs=1 seek=2000 conv=notrunc status=none
train bitten --overwrite_output
say "damaged checkpoint (one byte of $(basename "$checkpoint")): exit code $code; $(grep -a -m 1 'is damaged' "$output/bitten.log" | cut -c10- | sed "s|$output/||g")"

before=(faketime '2001-01-01 00:00:00')
train clock
before=(faketime -f '+3650d x50')
train clock --overwrite_output
before=()
((code == 0)) || fail "the run with another clock failed: $output/clock.log"
say "clock (in 2001 first, then ten years on and 50 times as fast): exit code $code, $(same clock)"

train vanished &
until grep -qs '"loss"' "$output/vanished/metrics.jsonl"; do sleep 0.1; kill -0 $! || break; done
mv "$output/rows.jsonl" "$output/rows.away"
wait $! || true
[[ -e $output/vanished/model.safetensors ]] && say "data file gone in mid-run: $(same vanished)" || say "data file gone in mid-run: $(last vanished)"
train gone
((code)) || fail "a run without its data ended well"
say "data file gone before the start: exit code $code; $(last gone)"
ln -s rows.jsonl "$output/rows.jsonl"
train loop
((code)) || fail "a run on a link that leads to itself ended well"
say "a link that leads to itself: exit code $code; $(last loop)"
say "passed ($SECONDS s)"
