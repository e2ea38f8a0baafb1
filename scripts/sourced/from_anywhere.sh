# shellcheck shell=bash
# Sourced first by scripts whose arguments name files: goes to the repository's folder.
#   as_given PATH      prints PATH so that it names there what it named where the script was called; any other word as it is
#   require_rows PATH  and
#   require_model NAME call `fail` where nothing of that name is there and it can be no name of the hub: before minutes of
#                      setting up

called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

as_given() {
    if [[ $called_from != "$PWD" && $1 != /* && -e $called_from/$1 ]]; then
        printf '%s\n' "$called_from/$1"
    else
        printf '%s\n' "$1"
    fi
}

require_rows() {
    [[ -e $1 || $1 == *:* ]] || fail "$1: there is no such file"
}

require_model() {
    if [[ ! -e $1 && ($1 == [/.~]* || $1 == */*/* || ($1 == */* && -d ${1%/*})) ]]; then fail "$1: there is no such folder"; fi
}
