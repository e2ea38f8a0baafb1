#!/usr/bin/env bash
# Runs scripts/slurm under a real Slurm of one node, which this script starts for itself and stops again: a sweep as an array, whose
# tasks are preempted by a job of a partition that goes first, and a run that is signalled. Both must end as if undisturbed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    cat <<'TEXT'
usage: bash scripts/drills/slurm.sh [--output_dir D]

Needs root and Slurm's programs (Debian, Ubuntu: apt-get install slurmctld slurmd slurm-client munge); a Slurm that runs here
already is left alone: this one has its own ports, sockets and folders. With a tiny model, in minutes on 2 CPU cores:
  1. three rows of a sweep run one after another, without Slurm;
  2. the same rows run as an array, two at a time; a job of a higher partition preempts both, they save within their grace time,
     go back into the queue, and end with the same bits (losses and weights) as without Slurm;
  3. one run of scripts/slurm/finetune.sbatch gets the signal that comes before the end of its time, with the same outcome.
What was seen is printed and kept in D/drill.md (default: results/drills/slurm).
TEXT
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

output=results/drills/slurm
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
[[ $(id -u) == 0 ]] || fail "the daemons need root"
PATH=$PATH:/usr/sbin:/sbin
for program in slurmctld slurmd sbatch munged; do
    command -v "$program" >/dev/null || fail "the program $program is missing: apt-get install slurmctld slurmd slurm-client munge"
done
[[ ! -e $output ]] || fail "$output is there already: delete it, or choose another --output_dir"
[[ -x .venv/bin/python ]] || bash scripts/setup.sh --no_model
mkdir -p "$output"
output=$(cd "$output" && pwd)
report=$output/drill.md

say() { printf '%s\n' "$*" | tee -a "$report"; }

# -- one node of Slurm ---------------------------------------------------------------------------------------------

# Short, for a socket's path has about a hundred characters; munge wants folders that only their owner may write to.
daemons=$(mktemp -d /run/slurm-drill.XXXXXX)
chmod 755 "$daemons"
mkdir "$daemons/state" "$daemons/spool"
pids=()
# shellcheck disable=SC2317  # the trap calls it
stop_daemons() {
    scancel --full --user root 2>/dev/null || true
    ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    cp "$daemons"/*.log "$output" 2>/dev/null || true
    rm -rf "$daemons"
}
trap stop_daemons EXIT
head -c 1024 /dev/urandom >"$daemons/key"
chmod 600 "$daemons/key"
munged --foreground --force --key-file="$daemons/key" --socket="$daemons/munge" --pid-file="$daemons/munge.pid" \
    --log-file="$daemons/munged.log" --seed-file="$daemons/seed" >"$daemons/munged.out" 2>&1 &
pids+=($!)
host=$(hostname -s)
first_port=$((30000 + $$ % 20000))
cat >"$daemons/slurm.conf" <<CONF
ClusterName=drill
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$daemons/munge
CredType=cred/munge
SlurmctldPort=$first_port
SlurmdPort=$((first_port + 1))
StateSaveLocation=$daemons/state
SlurmdSpoolDir=$daemons/spool
SlurmctldPidFile=$daemons/slurmctld.pid
SlurmdPidFile=$daemons/slurmd.pid
SlurmctldLogFile=$daemons/slurmctld.log
SlurmdLogFile=$daemons/slurmd.log
# Processes are found by /proc, so that no control groups are needed.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# Its name before Slurm 23.02; after it, PreemptParameters=send_user_signal.
$(slurmctld -V | awk '{exit !($2 < 23.02)}' && echo SlurmctldParameters=preempt_send_user_signal || echo PreemptParameters=send_user_signal)
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=usual Nodes=$host Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=240
PartitionName=first Nodes=$host MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
CONF
export SLURM_CONF=$daemons/slurm.conf
slurmctld -D -c >"$daemons/slurmctld.out" 2>&1 &
pids+=($!)
slurmd -D -c >"$daemons/slurmd.out" 2>&1 &
pids+=($!)
for ((i = 0; ; i++)); do
    [[ $(sinfo -h -p usual -o %T 2>/dev/null) == idle ]] && break
    ((i < 60)) || { tail -n 5 "$daemons"/*.out "$daemons"/*.log >&2; fail "Slurm's node does not come up: its last words are above"; }
    sleep 1
done

# field JOB NAME: one field of scontrol show job.
field() { { scontrol show job "$1" 2>/dev/null || true; } | { grep -o "\b$2=[^ ]*" || true; } | head -n 1 | cut -d= -f2; }

# waits_for JOB STATE: until a job is in that state.
waits_for() {
    local state
    for ((i = 0; i < 600; i++)); do
        state=$(field "$1" JobState)
        [[ $state != "$2" ]] || return 0
        [[ $state != FAILED && $state != CANCELLED ]] || break
        sleep 1
    done
    fail "job $1 is $state, not $2: see $output"
}

# until_steps FOLDER NUMBER: waits until a run has done so many steps.
until_steps() {
    local i
    for ((i = 0; i < 3000; i++)); do
        (($({ grep '"loss"' "$1/metrics.jsonl" 2>/dev/null || true; } | wc -l) < $2)) || return 0
        sleep 0.1
    done
    fail "$1 does not reach step $2"
}

# same NAME ONE OTHER: the same losses and the same weights, to the bit.
same() {
    say "  $1: $(.venv/bin/python scripts/drills/same_losses.py "$2" "$3" 0), $(cmp -s "$2/model.safetensors" "$3/model.safetensors" && echo "the same weights to the bit")"
    cmp "$2/model.safetensors" "$3/model.safetensors"
}

# -- the drill -----------------------------------------------------------------------------------------------------

export CUDA_VISIBLE_DEVICES="" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
.venv/bin/python src/make_tiny_model.py --output_dir "$output/model" >"$output/model.log"
export NUM_GPUS=0 MODEL_PATH=$output/model MODEL_NAME=tiny MIXED_PRECISION=no DATA_ROOT=data/sample TOTAL_BATCH_SIZE=4 MAX_LENGTH=256
export DATA_NAME_LIST="brief_answers_train long_answers_train brief_answers_test" EPOCH=100
export LR=1e-3
steps=(-- --max_train_steps 30)
say "$(date -u +%F), $(uname -sr), $(nproc --all) cores, $(sinfo --version), torch $(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch"))')"
OUTPUT_ROOT=$output/alone bash scripts/train_instruction_modelling.sh "${steps[@]}" >"$output/alone.log" 2>&1 ||
    fail "the sweep without Slurm failed: see $output/alone.log"
say "without Slurm: 3 rows ($SECONDS s)"

export OUTPUT_ROOT=$output/array
array=$(sbatch --parsable --partition=usual --array=1-3 --output="$output/array-%a.out" scripts/slurm/sweep_array.sbatch \
    scripts/train_instruction_modelling.sh "${steps[@]}")
rows=(); for folder in "$output"/alone/*/run.json; do rows+=("$(basename "$(dirname "$folder")")"); done
[[ ${#rows[@]} == 3 ]] || fail "three rows were expected: ${rows[*]}"
first=$(grep -l . "$output"/alone/*/run.json | xargs -n 1 dirname | xargs -n 1 basename | grep '^brief_answers_train')
until_steps "$output/array/$first" 10
urgent=$(sbatch --parsable --partition=first --ntasks=2 --output="$output/urgent.out" --wrap='date; sleep 5')
say "array $array: task 1 had done 10 of 30 steps when job $urgent of the first partition asked for the whole node"
waits_for "$urgent" COMPLETED
for task in 1 2 3; do waits_for "${array}_$task" COMPLETED; done
for task in 1 2 3; do say "  task $task: $(field "${array}_$task" JobState), restarts: $(field "${array}_$task" Restarts)"; done
[[ $(field "${array}_1" Restarts) -ge 1 ]] || fail "task 1 was not preempted"
say "  $(grep -h 'saved; back into the queue' "$output"/array-*.out | wc -l) tasks saved and went back into the queue; $(cd "$output/array" && grep -ao 'resuming from [^ ]*step_[0-9]*' -- */train.log | sed "s|.*/||" | paste -sd' ')"
for row in "${rows[@]}"; do same "$row" "$output/alone/$row" "$output/array/$row"; done

run=$output/signalled
single=$(SHARDING=none NNODES=1 sbatch --parsable --partition=usual --nodes=1 --output="$output/signalled.out" scripts/slurm/finetune.sbatch \
    --model_name_or_path "$output/model" --train_file data/sample/brief_answers_train.jsonl --output_dir "$run" --use_lm_loss \
    --max_train_steps 30 --learning_rate 1e-3)
until_steps "$run" 10
scancel --batch --signal=USR1 "$single"
waits_for "$single" COMPLETED
say "job $single got SIGUSR1 after 10 of 30 steps: $(field "$single" JobState), restarts: $(field "$single" Restarts)"
.venv/bin/python src/finetune.py --model_name_or_path "$output/model" --train_file data/sample/brief_answers_train.jsonl \
    --output_dir "$output/unsignalled" --use_lm_loss --max_train_steps 30 --learning_rate 1e-3 >"$output/unsignalled.log" 2>&1
same signalled "$output/unsignalled" "$run"
say "passed ($SECONDS s)"
