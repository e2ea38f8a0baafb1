#!/usr/bin/env bash
# Lint, types and tests; every check runs, whatever failed before it, and the summary at the end says which did.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

usage() {
    cat <<'TEXT'
usage: bash scripts/test.sh [--slow] [PYTEST ARGUMENTS]

Runs scripts/setup.sh, then ruff, mypy and the tests; all of them, whichever arguments are given.

  --slow  run the tests marked slow too, after the others

TEST_PROCESSES=N runs N test files at a time (default: 3).

Anything else goes to pytest: bash scripts/test.sh tests/training/test_losses.py -k tied
TEXT
}

slow=no arguments=()
for argument in "$@"; do
    case $argument in
        --slow) slow=yes ;;
        -h | --help) usage; exit 0 ;;
        *) arguments+=("$argument") ;;
    esac
done

bash scripts/setup.sh || { printf '[test] FAILED: setup\n' >&2; exit 1; }

# The tests' models are so small that a second thread slows them down, and no test may wait for a hub.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1

summary=() failed=()
# check NAME COMMAND...: runs it and keeps its name, result and time for the summary.
check() {
    local name=$1 code=0 started=$SECONDS result=passed
    shift
    printf '[test] %s\n' "$name"
    "$@" </dev/null || code=$?
    # pytest's 5: nothing was marked slow.
    if [[ $code == 5 && $name == "slow tests" ]]; then
        result="none to run"
    elif ((code)); then
        result="FAILED ($code)"
        failed+=("$name")
    fi
    summary+=("$(printf '%-12s %-12s %4s s' "$name" "$result" $((SECONDS - started)))")
}

# A file's tests stay together: they share what takes long to make. Tests wait part of their time for what they
# start, so that three files at a time keep two processors busy.
pytest=(.venv/bin/python -m pytest -p no:cacheprovider -q --durations=30 -rs -n "${TEST_PROCESSES:-3}" --dist loadfile)
check ruff .venv/bin/python -m ruff check .
# mypy keeps one processor busy for a while: it runs beside the tests, and what it said is shown after them.
exec 3< <(.venv/bin/python -m mypy </dev/null 2>&1; printf 'ended with %s' "$?")
what_mypy_said() {
    local said
    said=$(cat <&3)
    printf '%s\n' "${said%ended with *}"
    return "${said##*ended with }"
}
check tests "${pytest[@]}" -m "not slow" ${arguments[@]+"${arguments[@]}"}
check mypy what_mypy_said
[[ $slow == no ]] || check "slow tests" "${pytest[@]}" -m slow ${arguments[@]+"${arguments[@]}"}

printf '[test] %s\n' "${summary[@]}"
if ((${#failed[@]})); then
    printf '[test] FAILED: %s (%s s)\n' "$(IFS=,; printf '%s' "${failed[*]}")" "$SECONDS"
    exit 1
fi
printf '[test] all passed (%s s)\n' "$SECONDS"
