# What the scripts in this folder share; it is sourced, never run.

# Says what is being done, so that a log reads by its headings.
heading() { printf '\n== %s\n' "$*"; }

# Ends the script with a message that says what to do.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Runs a command as root: directly, or through sudo where that is what the user has.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $*; run it as root or install sudo"
    fi
}

# Whether a Debian package is installed.
has_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Installs those of the named Debian packages that are missing, and starts none of their services: a benchmark's
# peers must not keep running beside it, and a build machine did not ask for a server.
install_packages() {
    local package missing=()
    for package in "$@"; do
        has_package "$package" || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "no apt-get here; install by hand: ${missing[*]}"
    echo "installing: ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d own_policy=no status=0
    if [ ! -e "$policy" ]; then
        own_policy=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    apt_install "${missing[@]}" || status=$?
    [ "$own_policy" = no ] || as_root rm -f "$policy"
    [ "$status" = 0 ] || die "apt-get could not install: ${missing[*]}"
}

# A machine may have no package lists yet, or stale ones that name versions which are gone: fetch them and try again.
apt_install() {
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends)
    as_root "${install[@]}" "$@" || {
        as_root apt-get -q -y -o DPkg::Lock::Timeout=300 update && as_root "${install[@]}" "$@"
    }
}
