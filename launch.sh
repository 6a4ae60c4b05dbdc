#!/usr/bin/env bash
# Makes .venv if it is missing, installs mgr_jax with the versions it was tested with,
# and runs it.
#
#   ./launch.sh            the main job on synth, which needs no data
#   ./launch.sh FLAGS...   python -m mgr_jax.main FLAGS...
#   ./launch.sh test       the tests (further words go to pytest)
#   ./launch.sh --local_processes=N FLAGS...
#                          the same as N processes of one job, as N hosts would be
#
# PYTHON=python3.12      the Python to make .venv with
# MGR_EXTRAS=cuda        extras of setup.cfg to install as well (cuda, tpu, beam, test)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$root/.venv

fail() {
  echo "launch.sh: $*" >&2
  exit 1
}

is_supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    is_supported "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11, 3.12 or 3.13"
    echo "$PYTHON"
    return
  fi
  for candidate in python3 python python3.13 python3.12 python3.11; do
    if is_supported "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "needs Python 3.11, 3.12 or 3.13; name one: PYTHON=/path/to/python3.12 ./launch.sh"
}

make_venv() {
  local python
  python=$(find_python)
  echo "launch.sh: making $venv with $("$python" --version)" >&2
  "$python" -m venv --clear "$venv" ||
    fail "$python cannot make virtual environments (Debian, Ubuntu: apt install python3-venv)"
}

# Installs when an extra, setup.cfg or the lock has changed since the last time.
install() {
  local extras=$1 lock stamp wanted
  lock=$root/requirements/$("$venv/bin/python" -c \
    'import sys; print("py3.%d.txt" % sys.version_info[1])')
  # The locks were made on Linux x86-64; other platforms take the ranges of setup.cfg.
  [ "$(uname -sm)" = "Linux x86_64" ] && [ -f "$lock" ] || lock=/dev/null
  stamp=$venv/installed
  # The editable install knows this folder by its path.
  wanted="$extras $root $(cat "$root/setup.cfg" "$lock" | cksum)"
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
  echo "launch.sh: installing (a few minutes the first time)" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$lock" --editable "$root${extras:+[$extras]}" ||
    fail "the installation failed; its last lines are above"
  echo "$wanted" >"$stamp"
}

"$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv

if [ "${1:-}" = test ]; then
  shift
  install "test${MGR_EXTRAS:+,$MGR_EXTRAS}"
  cd "$root"
  exec "$venv/bin/python" -m pytest "$@"
fi

# What the tests need stays installed once it is there.
if grep -q '^test' "$venv/installed" 2>/dev/null; then
  install "test${MGR_EXTRAS:+,$MGR_EXTRAS}"
else
  install "${MGR_EXTRAS:-}"
fi
case ${1:-} in
--local_processes=*) exec "$venv/bin/python" -m mgr_jax.local_job "$@" ;;
esac
[ $# -gt 0 ] || set -- --dataset=synth --feature=spectrogram
exec "$venv/bin/python" -m mgr_jax.main "$@"
