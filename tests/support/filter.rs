//! Filters of system calls around a program under test, among them one that leaves what Linux 4.18
//! has.

use std::collections::BTreeMap;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::{code, end_within};

/// Returns a filter that answers `call`, or those of its calls that match `rules`, with `errno`.
pub(crate) fn filter(call: i64, errno: i32, rules: Vec<SeccompRule>) -> BpfProgram {
    answering(BTreeMap::from([(call, rules)]), errno)
}

fn answering(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> BpfProgram {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).unwrap().try_into().unwrap()
}

/// Starts a command under filters. They are set on a thread of its own, and child processes of the
/// thread inherit them.
pub(crate) fn behind(filters: &[BpfProgram], command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    thread::scope(|scope| {
        let behind = scope.spawn(|| {
            for filter in filters {
                seccompiler::apply_filter(filter).unwrap();
            }
            command.spawn().unwrap()
        });
        behind.join().unwrap()
    })
}

/// Returns filters that leave what Linux 4.18 has to a user without capabilities: system calls and
/// options of sockets.
pub(crate) fn linux_4_18() -> Vec<BpfProgram> {
    let newer_calls = (FIRST_NEWER_CALL..CALLS_END).map(|call| (call, Vec::new())).collect();
    let options = [libc::SYS_getsockopt, libc::SYS_setsockopt];
    let level = || is(1, SeccompCmpOp::Eq, libc::SOL_SOCKET);
    let option = |operator, option| vec![level(), is(2, operator, option)];
    let rule = |conditions| SeccompRule::new(conditions).unwrap();
    let newer = || vec![rule(option(SeccompCmpOp::Gt, libc::SO_ZEROCOPY))];
    let newer_options = options.into_iter().map(|call| (call, newer())).collect();
    let bound = vec![rule(option(SeccompCmpOp::Eq, libc::SO_BINDTODEVICE))];
    vec![
        answering(newer_calls, libc::ENOSYS),
        answering(newer_options, libc::ENOPROTOOPT),
        filter(libc::SYS_setsockopt, libc::EPERM, bound),
    ]
}

fn is(argument: u8, operator: SeccompCmpOp, value: libc::c_int) -> SeccompCondition {
    let value = u64::from(value.cast_unsigned());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).unwrap()
}

/// Runs the tests of this program again with the calls of Linux 4.18, but for those whose names
/// contain one of `others`.
pub(crate) fn same_cases_with_linux_4_18(others: &[&str]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(others.iter().flat_map(|name| ["--skip", name]));
    let output: Output = end_within(behind(&linux_4_18(), &mut command), AGAIN_WITHIN);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{said}");
    assert!(!said.contains(" 0 passed"), "{said}");
}

/// Number of the first system call that came after Linux 4.18. From there on, processors have the
/// same numbers.
const FIRST_NEWER_CALL: i64 = libc::SYS_pidfd_send_signal;
/// Beyond the last one of any kernel so far.
const CALLS_END: i64 = 500;
/// Far longer than the tests of one file take.
const AGAIN_WITHIN: Duration = Duration::from_secs(600);
