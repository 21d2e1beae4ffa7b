//! Signals: what ends a node from outside, and what must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::node_transfer::EventSender;
use crate::core::error::{Code, Error, Result};

/// Watches the signals that end the node: the first one sets the flag that is returned and wakes
/// the control thread, so that what cannot be gone on with is removed on the way out. A second
/// SIGTERM or SIGINT ends the process in its handler, whatever the threads are waiting for, with
/// the status that shells give: 128 and the signal's number.
///
/// # Errors
/// `Code::Internal` where they cannot be watched.
pub(super) fn watch(post: EventSender) -> Result<Arc<AtomicBool>> {
    let failed = |error: std::io::Error| {
        let what = Error::new(Code::Internal, format!("cannot watch signals: {error}"));
        crate::io::system_calls::perhaps_filtered(
            what,
            &error,
            "socketpair, clone3 or rt_sigaction",
        )
    };
    let (stopped, once) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag unset, and sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&once))
            .map_err(failed)?;
        signal_hook::flag::register(signal, Arc::clone(&once)).map_err(failed)?;
    }
    let mut signals = Signals::new(ending()).map_err(failed)?;
    let flag = Arc::clone(&stopped);
    let watch = move || {
        if signals.forever().next().is_some() {
            flag.store(true, Ordering::Release);
            post.wake();
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(failed)?;
    Ok(stopped)
}

/// The signals that end this program. Whoever had SIGHUP ignored (nohup) wants it to go on without
/// its terminal.
pub(crate) fn ending() -> impl Iterator<Item = i32> {
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    [SIGTERM, SIGINT].into_iter().chain(hangup)
}

/// A write beyond the limit of a file's size (ulimit -f) is an error of that write, and not the end
/// of the process.
///
/// # Errors
/// `Code::Internal` where the signal cannot be caught.
pub(crate) fn outlive_file_limits() -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(Code::Internal, format!("cannot catch SIGXFSZ: {error}"))
    };
    // Nobody reads the flag: with a handler the write returns EFBIG.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop).map_err(failed)
}

fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_kernel() {
        // The standard library ignores it in every program.
        assert!(is_ignored(signal_hook::consts::SIGPIPE));
        assert!(!is_ignored(signal_hook::consts::SIGSEGV));
    }
}
