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

# Names of packages: in Debian, with dnf (Fedora, RHEL 8 and 9), with zypper (SLES, openSUSE). A dash: there is none, or
# another one has it. Several are joined by a comma.
package_table() {
    cat <<'END'
gcc                      gcc                          gcc
libc6-dev                glibc-devel                  glibc-devel
libhwloc-dev             hwloc-devel                  hwloc-devel
libudev-dev              systemd-devel                libudev-devel
pkg-config               pkgconf-pkg-config           pkg-config
iproute2                 iproute,iproute-tc           iproute2
nftables                 nftables                     nftables
ethtool                  ethtool                      ethtool
e2fsprogs                e2fsprogs                    e2fsprogs
openssh-server           openssh-server               openssh-server
openssh-client           openssh-clients              openssh-clients
csh                      tcsh                         tcsh
fish                     fish                         fish
munge                    munge                        munge
slurmctld                slurm-slurmctld              slurm
slurmd                   slurm-slurmd                 slurm-node
slurm-client             slurm                        slurm
slurm-wlm-basic-plugins  -                            slurm-plugins
openmpi-bin              openmpi                      openmpi
musl-tools               musl-gcc                     -
dpkg-dev                 dpkg-dev                     dpkg
debootstrap              debootstrap                  debootstrap
END
}

# The package manager of this system, or "none".
package_manager() {
    local manager
    for manager in apt-get dnf zypper; do
        if command -v "$manager" >/dev/null; then
            echo "$manager"
            return
        fi
    done
    echo none
}

# The names that packages of Debian have with a package manager, one a line.
package_names() {
    local manager=$1 package debian dnf zypper names
    shift
    for package in "$@"; do
        names=
        while read -r debian dnf zypper; do
            [ "$debian" = "$package" ] || continue
            case $manager in
                dnf) names=$dnf ;;
                zypper) names=$zypper ;;
                *) names=$debian ;;
            esac
        done < <(package_table)
        # What is not in the table has the same name everywhere.
        names=${names:-$package}
        [ "$names" = - ] || printf '%s\n' "${names//,/$'\n'}"
    done
}

# Whether a package is installed, under its own name or one that it provides.
has_package() {
    if [ "$(package_manager)" = apt-get ]; then
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
    else
        rpm --quiet -q --whatprovides "$1"
    fi
}

# Sets `missing` to those names of packages that are not installed, and `manager`.
find_missing() {
    local name names
    manager=$(package_manager)
    names=$(package_names "$manager" "$@") || exit 1
    missing=()
    if [ "$manager" = none ]; then
        missing=($names)
        return
    fi
    for name in $names; do
        [[ " ${missing[*]} " == *" $name "* ]] || has_package "$name" || missing+=("$name")
    done
}

# Installs those of the packages that are missing. Their names are Debian's, whatever the system is.
install_packages() {
    local manager missing
    find_missing "$@"
    [ "${#missing[@]}" -gt 0 ] || return 0
    [ "$manager" != none ] ||
        die "no apt-get, dnf or zypper here; install what Debian calls: ${missing[*]}"
    echo "installing: ${missing[*]}"
    run_manager "$manager" "${missing[@]}" ||
        die "$manager could not install: ${missing[*]}$(where_packages_are "$manager")"
}

# The same for packages without which some tests skip themselves. What no repository of this system has is named.
install_packages_of_tests() {
    local manager missing name lacking=()
    find_missing "$@"
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$manager" = none ]; then
        echo "tests that need them are skipped, install what Debian calls: ${missing[*]}" >&2
        return
    fi
    echo "installing: ${missing[*]}"
    run_manager "$manager" "${missing[@]}" && return
    for name in "${missing[@]}"; do
        run_manager "$manager" "$name" || lacking+=("$name")
    done
    [ "${#lacking[@]}" -eq 0 ] ||
        echo "tests that need them are skipped: ${lacking[*]}$(where_packages_are "$manager")" >&2
}

# Where packages are that a system does not have by default.
where_packages_are() {
    case $1 in
        dnf)
            printf '%s' "; RHEL and its kin have hwloc-devel in CRB (dnf config-manager --set-enabled crb; on 8:" \
                " powertools, or codeready-builder of the subscription), fish, slurm and musl-gcc in EPEL" \
                " (dnf install epel-release)"
            ;;
        zypper)
            printf '%s' "; SLES has hwloc-devel and compilers in the Development Tools module, slurm in HPC, fish and" \
                " nftables in Package Hub (SUSEConnect -p)"
            ;;
    esac
}

# Installs packages with a package manager.
run_manager() {
    local manager=$1
    shift
    case $manager in
        apt-get) apt_install_quietly "$@" ;;
        dnf) as_root dnf -q -y --setopt=install_weak_deps=False install "$@" ;;
        zypper) as_root zypper --quiet --non-interactive install --no-recommends "$@" ;;
    esac
}

# Starts none of the services of new packages: a benchmark's peers must not keep running beside it, and a build machine
# did not ask for a server. Those of dnf and zypper start none by themselves.
apt_install_quietly() {
    local policy=/usr/sbin/policy-rc.d own_policy=no status=0
    if [ ! -e "$policy" ]; then
        own_policy=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    apt_install "$@" || status=$?
    [ "$own_policy" = no ] || as_root rm -f "$policy"
    return "$status"
}

# A machine may have no package lists yet, or stale ones that name versions which are gone: fetch them and try again.
apt_install() {
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends)
    as_root "${install[@]}" "$@" || {
        as_root apt-get -q -y -o DPkg::Lock::Timeout=300 update && as_root "${install[@]}" "$@"
    }
}
