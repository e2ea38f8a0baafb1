#!/usr/bin/env bash
# Makes everything the other commands need: the Python environment in .venv, the embedded model in models/, and, where
# apt-get can be used, two optional programs. Run it as often as you like: what is there is left as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'TEXT'
usage: bash scripts/setup.sh [--check] [--no_model] [--no_system_packages] [--locked]

  --check               change nothing; exit 0 if environment and model are ready, 1 if not
  --no_model            leave out the embedded model (273 MB), which scripts/quickstart.sh uses without --model
  --no_system_packages  leave out bubblewrap and chromium (optional; installed with apt-get, as root or by sudo
                        where it asks for no password), from later runs in this folder too, until
                        .venv/.setup-system-packages is deleted
  --locked              hold every package but torch to the hashes of requirements.lock

PYTHON=/path/to/python3.11 chooses the Python that .venv is made with (3.11 or newer).
TEXT
}

say() { printf '[setup] %s\n' "$*"; }
fail() {
    printf '[setup] error: %s\n' "$*" >&2
    exit 1
}
trap 'say "stopped; the same command goes on" >&2; exit 130' INT

check=no model=yes system_packages=yes locked=no
for argument in "$@"; do
    case $argument in
        --check) check=yes ;;
        --no_model) model=no ;;
        --no_system_packages) system_packages=no ;;
        --locked) locked=yes ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "$argument: no such option" ;;
    esac
done

python=.venv/bin/python
stamp=.venv/.setup-stamp system_packages_tried=.venv/.setup-system-packages
wanted=$(cat requirements.txt requirements-eval.txt pyproject.toml | cksum)

# Whether each pinned version is installed and the library is this folder's; imports nothing heavy.
pins_hold() {
    "$python" - <<'PYTHON'
import importlib.metadata
import importlib.util
import pathlib
import sys

files = ("requirements.txt", "requirements-eval.txt")
lines = (line.split("#")[0].strip() for name in files for line in pathlib.Path(name).read_text().splitlines())
pins = [line.split("==") for line in lines if "==" in line]
try:
    wrong = [name for name, pin in pins if importlib.metadata.version(name.split("[")[0]).split("+")[0] != pin]
except importlib.metadata.PackageNotFoundError:
    sys.exit(1)
library = importlib.util.find_spec("instruction_modelling")
places = list(library.submodule_search_locations or []) if library else []
sys.exit(bool(wrong) or str(pathlib.Path("src/instruction_modelling").resolve()) not in places)
PYTHON
}

# The stamp's second line is the folder: the scripts of an environment that was moved or copied name the former one.
environment_is_ready() {
    [[ -x $python && -f $stamp && $(<"$stamp") == "$wanted"$'\n'"$PWD" ]] && pins_hold
}

model_is_ready() {
    [[ $model == no ]] || "$python" src/fetch_model.py --check_only >/dev/null
}

# Prints the first Python that is new enough.
find_python() {
    local candidate found=
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        command -v "$candidate" >/dev/null || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
        found+=" $candidate is $("$candidate" --version 2>&1 | head -n 1);"
    done
    fail "Python 3.11 or newer is needed:${found:- none was found;} install one and name it:" \
        "PYTHON=/path/to/python3.11 bash scripts/setup.sh"
}

# pip's own bar on a terminal; a line every 20 seconds in a log, where a silent quarter of an hour looks like a hang.
install() {
    local always=(--no-input --no-compile --disable-pip-version-check) shown=() watcher="" code=0
    if [[ -t 1 ]]; then shown=("${always[@]}" --progress-bar on); else
        shown=(-qq "${always[@]}" --progress-bar off)
        # Closes the lock, which a sleep that outlives this script would hold.
        watch_pip 9>&- &
        watcher=$!
    fi
    mkdir -p .venv/.download
    # Debian 12's pip builds a package that has only a setup.py (one of fschat's needs) in the old way, which fails today.
    PIP_USE_PEP517=1 TMPDIR=$PWD/.venv/.download "$python" -m pip install "${shown[@]}" "$@" || code=$?
    [[ -z $watcher ]] || { kill "$watcher" && wait "$watcher"; } 2>/dev/null || true
    rm -rf .venv/.download
    ((code == 0)) ||
        fail "pip could not install this: $* (its reason is above; is there a network, and room on the disk?)." \
            "Run this again to go on from here"
}

watch_pip() {
    local since=$SECONDS
    # A sleep that outlives this script must not hold what reads its output either.
    while sleep 20 >/dev/null 2>&1; do
        say "pip is at work ($((SECONDS - since)) s; .venv has $(du -s --block-size=1MB .venv 2>/dev/null | cut -f1) MB of about 2400)"
    done
}

make_environment() {
    local base torch former
    if [[ -f $stamp ]]; then
        former=$(tail -n 1 "$stamp")
        if [[ $former != "$PWD" ]]; then
            say "removing the environment of another folder ($former)"
            rm -rf .venv
        fi
    fi
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        base=$(find_python)
        say "making .venv with $base ($("$base" --version))"
        "$base" -m venv --clear .venv ||
            fail "$base cannot make environments: install its venv module (Debian, Ubuntu: apt-get install python3-venv)"
    fi
    rm -f "$stamp"
    torch=$(grep -E '^torch==' requirements.txt)
    say "installing $torch (the first time this takes minutes)"
    install "$torch"
    if [[ $locked == yes ]]; then
        say "installing requirements.lock, each package by its hash"
        # It names all that is needed. Where pip works it out anew, a release newer than the lock stops it.
        install --no-deps --require-hashes -r requirements.lock
    else
        say "installing the rest of requirements.txt and requirements-eval.txt"
        install -r requirements.txt -r requirements-eval.txt
    fi
    install --no-deps --no-build-isolation -e .
    say "compiling what is installed"
    # By all cores, where pip uses one; what that leaves (it needs shared memory) by one. Left out, each start would be
    # about ten seconds longer where Python may not write what it compiles (PYTHONDONTWRITEBYTECODE). Files for other
    # Pythons fail, and are never imported.
    "$python" -m compileall -q -q -j 0 .venv/lib >/dev/null 2>&1 9>&- ||
        "$python" -m compileall -q -q .venv/lib >/dev/null 2>&1 9>&- || true
    pins_hold || fail "what is installed is not what requirements.txt and requirements-eval.txt say: delete .venv and run this again"
    printf '%s\n%s\n' "$wanted" "$PWD" >"$stamp"
}

# bubblewrap keeps generated code apart from the machine; chromium draws reports in tests. Tried once an environment.
install_system_packages() {
    local missing=() as_root=() name
    [[ ! -f $system_packages_tried ]] || return 0
    command -v bwrap >/dev/null || missing+=(bubblewrap)
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null || missing+=(chromium)
    if ((${#missing[@]})); then
        [[ $(id -u) == 0 ]] || as_root=(sudo -n)
        if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
            say "not installed, and used when present: ${missing[*]} (this needs apt-get and root)"
        else
            as_root+=(env DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -qq -o DPkg::Lock::Timeout=60)
            "${as_root[@]}" update </dev/null >/dev/null 2>&1 || true
            for name in "${missing[@]}"; do
                say "installing $name with apt-get"
                "${as_root[@]}" install -y --no-install-recommends "$name" </dev/null >/dev/null 2>&1 ||
                    say "not installed, and used when present: $name (apt-get could not install it)"
            done
        fi
    fi
    touch "$system_packages_tried"
}

if [[ $check == yes ]]; then
    environment_is_ready && model_is_ready
    exit
fi

# The folder itself is the lock, so a second run waits and then finds everything there.
exec 9<.
if command -v flock >/dev/null && ! flock -n 9; then
    say "waiting for another setup of this folder to end"
    flock 9
fi
environment_is_ready || make_environment
if [[ $system_packages == no ]]; then touch "$system_packages_tried"; else install_system_packages; fi
if ! model_is_ready; then
    "$python" src/fetch_model.py | sed 's/^/[setup] /' ||
        fail "the embedded model is not there (everything else is); --no_model goes on without it"
fi
say "ready (${SECONDS} s)"
