#!/usr/bin/env bash
# Make this checkout runnable: GL libraries (apt), .venv, the project with all extras.
# Fresh Debian 12 or Ubuntu 22.04/24.04, as root or with sudo, with or without ROS 2.
# Quick when nothing changed: .venv/.ready holds a hash of what the set-up depends on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly STAMP=.venv/.ready
readonly LIBRARIES=(libEGL.so.1 libGL.so.1 libOSMesa.so)
readonly PACKAGES=(libegl1 libgl1 libgl1-mesa-dri libosmesa6)

say() { printf '[setup] %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$1" >&2
    exit 1
}

# --- which Python ---------------------------------------------------------------------------------

good_python() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

with_ros() { [ -n "${AMENT_PREFIX_PATH:-}" ] && "$1" -c 'import rclpy' >/dev/null 2>&1; }

# ROS 2 comes with packages for the system's Python only, so that one goes first where ROS is sourced.
find_python() {
    local candidates=(python3.11 python3.12 python3.10 python3) candidate
    if [ -n "${AMENT_PREFIX_PATH:-}" ]; then candidates=(/usr/bin/python3 "${candidates[@]}"); fi
    for candidate in ${PYTHON:-} "${candidates[@]}"; do
        if command -v "$candidate" >/dev/null && good_python "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python 3.10 to 3.12 found (python3 is $(python3 --version 2>&1)). Right: install one, or PYTHON=/path/to/python3.11 make setup."
}

# --- apt ------------------------------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

install_packages() {
    local packages=("$@")
    command -v apt-get >/dev/null ||
        fail "missing ${packages[*]}, and this is no Debian or Ubuntu. Right: install what gives ${LIBRARIES[*]} and python venv."
    say "installing ${packages[*]}"
    as_root true || fail "missing ${packages[*]}, and there is neither root nor sudo. Right: apt-get install ${packages[*]}"
    as_root apt-get update -qq || say "apt-get update failed; trying with the old lists"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null ||
        fail "apt-get could not install ${packages[*]} (its message is above)."
}

missing_packages() {
    local python=$1 known i
    known=$( (ldconfig -p || /sbin/ldconfig -p) 2>/dev/null)
    for i in "${!LIBRARIES[@]}"; do
        grep -q "${LIBRARIES[$i]}" <<<"$known" || { printf '%s ' "${PACKAGES[@]}"; break; }
    done
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -c 'import sys; print(f"python3.{sys.version_info[1]}-venv")'
    fi
}

# --- .venv ----------------------------------------------------------------------------------------

fingerprint() {
    { cat setup.py pyproject.toml constraints.txt scripts/setup.sh; pwd; echo "$1 $2"; "$1" -V; } | sha256sum | cut -d' ' -f1
}

# With ROS sourced its own numpy stays: messages are compiled against it.
ros_constraints() {
    local version
    version=$("$1" -c 'import numpy; print(numpy.__version__)' 2>/dev/null) || version=""
    case $version in
        "" | 2.*) cat constraints.txt ;;
        *) sed -E '/^(numpy|scipy|opencv-python-headless|matplotlib|contourpy|rerun-sdk)==/d' constraints.txt; echo "numpy==$version" ;;
    esac
}

build_venv() {
    local python=$1 ros=$2 extras=ros,sim,gym,viz,formats,s3,docs,test options=() quiet=()
    if [ "$ros" = yes ]; then
        say "ROS 2 found ($("$python" -c 'import rclpy; print(rclpy.__file__)')): no ROS wheels are installed"
        extras=sim,gym,viz,formats,s3,docs,test
        options=(--system-site-packages)
    fi
    if [ ! -x .venv/bin/python ] || [ "$(cat .venv/.python 2>/dev/null)" != "$python $ros" ]; then
        say "making .venv with $("$python" -V)"
        rm -rf .venv
        "$python" -m venv "${options[@]}" .venv || fail "$python -m venv failed (its message is above)."
        echo "$python $ros" >.venv/.python
    fi
    if [ "$ros" = yes ]; then ros_constraints "$python"; else cat constraints.txt; fi >.venv/constraints.txt
    say "installing the project with [$extras]; the first time this fetches some GB (PyTorch)"
    [ -t 1 ] || quiet=(--quiet)
    .venv/bin/python -m pip install "${quiet[@]}" --disable-pip-version-check --use-pep517 \
        -c .venv/constraints.txt -e ".[$extras]" ||
        fail "pip could not install the project (its message is above). Right: check the network and the disk ($(df -h --output=avail . | tail -1 | tr -d ' ') free), then run it again."
    # colcon must write the venv's Python into the nodes' scripts, also where the system has a colcon.
    [ -x .venv/bin/colcon ] || .venv/bin/python -m pip install --quiet --force-reinstall --no-deps \
        -c .venv/constraints.txt colcon-core
}

main() {
    local python ros=no print
    python=$(find_python)
    if with_ros "$python"; then ros=yes; fi
    print=$(fingerprint "$python" "$ros")
    if [ "$(cat "$STAMP" 2>/dev/null)" = "$print" ] && [ -x .venv/bin/wm ]; then return; fi
    local missing
    missing=$(missing_packages "$python" | xargs)
    # shellcheck disable=SC2086
    if [ -n "$missing" ]; then install_packages $missing; fi
    build_venv "$python" "$ros"
    echo "$print" >"$STAMP"
    say "ready: .venv/bin/wm"
}

main "$@"
