//! The system calls that a confined process may make: a filter of seccomp.
//!
//! A call that is not in the list is answered as by a kernel that does not have it (`ENOSYS`):
//! libraries and this program have other ways then, and no transfer is lost to a call that was
//! forgotten. A filter that ends the process would lose all of them.
//!
//! The list is what traces of nodes under the tests have, and what stands in for those calls on
//! other kernels, processors and C libraries.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Reason why this kernel cannot bind the calls of a process, if so.
pub(crate) fn obstacle() -> Option<String> {
    if TargetArch::try_from(std::env::consts::ARCH).is_err() {
        return Some("no list of system calls for this processor".into());
    }
    // Without /proc the attempt tells.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let has_filters = status.lines().any(|line| line.starts_with("Seccomp:"));
    (!has_filters).then(|| "the kernel is built without filters of system calls".into())
}

/// Binds the calling thread to the calls of a node.
///
/// # Errors
/// The obstacle, in words; then nothing is bound.
pub(super) fn confine() -> Result<(), String> {
    if let Some(obstacle) = obstacle() {
        return Err(obstacle);
    }
    let filter = filter().map_err(|error| format!("no filter of system calls: {error}"))?;
    seccompiler::apply_filter(&filter).map_err(|error| format!("seccomp: {error}"))
}

fn filter() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    rules.extend(PLAIN.into_iter().chain(OF_PROCESSOR).map(|call| (call, Vec::new())));
    let ne = |argument, value| condition(argument, SeccompCmpOp::Ne, value);
    let has = |argument, mask, value| condition(argument, SeccompCmpOp::MaskedEq(mask), value);
    let is = |argument, value| condition(argument, SeccompCmpOp::Eq, value);
    let number = |value: libc::c_int| u64::from(value.cast_unsigned());
    // Threads, and no processes.
    let thread = number(libc::CLONE_THREAD);
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![has(0, thread, thread)?])?]);
    // Memory holds data or code of the program, never code that was written at run time.
    let code = number(libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![SeccompRule::new(vec![has(2, code, 0)?])?]);
    }
    // Nothing is typed into terminals.
    let typing = [TIOCSTI, TIOCLINUX];
    let typing: Result<Vec<_>, BackendError> = typing.into_iter().map(|it| ne(1, it)).collect();
    rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(typing?)?]);
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let families: Result<Vec<_>, BackendError> =
        families.into_iter().map(|it| SeccompRule::new(vec![is(0, number(it))?])).collect();
    rules.insert(libc::SYS_socket, families?);
    // Signals to itself alone, and its own limits.
    let own = u64::from(std::process::id());
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, vec![SeccompRule::new(vec![is(0, own)?])?]);
    }
    let mut self_alone = Vec::new();
    for process in [0, own] {
        self_alone.push(SeccompRule::new(vec![is(0, process)?])?);
    }
    rules.insert(libc::SYS_prlimit64, self_alone);
    let missing = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, missing, SeccompAction::Allow, arch)?.try_into()
}

/// A condition on 32 bits of an argument: all that are looked at are flags and small numbers.
fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

/// Requests that put input into a terminal. C libraries disagree on the type of requests.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
/// `cachestat` (Linux 6.5), which the library has no name for.
const CACHESTAT: i64 = 451;

/// Calls that a node may make with any arguments.
const PLAIN: [i64; 112] = [
    // Files that are open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    CACHESTAT,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fgetxattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_copy_file_range,
    // Names: Landlock says which.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_umask,
    // Sockets.
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_munlock,
    libc::SYS_memfd_create,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_get_mempolicy,
    libc::SYS_membarrier,
    // Threads and signals.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getcpu,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tkill,
    libc::SYS_prctl,
    // Questions.
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_geteuid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
];

/// Calls that this processor has besides: older forms of those above.
#[cfg(target_arch = "x86_64")]
const OF_PROCESSOR: [i64; 14] = [
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_unlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_getrlimit,
    libc::SYS_time,
];
#[cfg(target_arch = "aarch64")]
const OF_PROCESSOR: [i64; 1] = [libc::SYS_renameat];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OF_PROCESSOR: [i64; 0] = [];
