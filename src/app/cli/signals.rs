//! Signals: what ends a node from outside, and what must not.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::core::error::{Code, Error, Result};
use crate::io::node::NodeStop;

/// Stops a node at the first signal that ends programs. A second SIGTERM or SIGINT ends the process
/// in its handler, whatever the threads are waiting for, with the status that shells give: 128 and
/// the signal's number.
///
/// # Errors
/// `Code::Internal` where they cannot be watched.
pub(super) fn stop_on_signals(node: NodeStop) -> Result<()> {
    let once = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag unset, and sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&once))
            .map_err(|error| not_watched(&error))?;
        signal_hook::flag::register(signal, Arc::clone(&once))
            .map_err(|error| not_watched(&error))?;
    }
    on_each(move |earlier| {
        if earlier == 0 {
            node.stop();
        }
    })
}

/// Cancels at the first signal, so that the nodes clean up; the second ends this process at once.
///
/// # Errors
/// `Code::Internal` where they cannot be watched.
pub(super) fn cancel_on_signals(cancel: impl Fn() + Send + 'static) -> Result<()> {
    on_each(move |earlier| match earlier {
        0 => cancel(),
        _ => std::process::exit(i32::from(Code::Cancelled.number())),
    })
}

/// Calls `act` in a thread of its own for each signal that ends this program, with the number of
/// signals before it.
fn on_each(act: impl Fn(usize) + Send + 'static) -> Result<()> {
    let mut signals = Signals::new(ending()).map_err(|error| not_watched(&error))?;
    let watch = move || (0..).zip(signals.forever()).for_each(|(earlier, _)| act(earlier));
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(watch)
        .map(drop)
        .map_err(|error| not_watched(&error))
}

fn not_watched(error: &std::io::Error) -> Error {
    let what = Error::new(Code::Internal, format!("cannot watch signals: {error}"));
    crate::io::system_calls::perhaps_filtered(what, error, "socketpair, clone3 or rt_sigaction")
}

/// The signals that end this program. Whoever had SIGHUP ignored (nohup) wants it to go on without
/// its terminal.
fn ending() -> impl Iterator<Item = i32> {
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    [SIGTERM, SIGINT].into_iter().chain(hangup)
}

/// A write beyond the limit of a file's size (ulimit -f) is an error of that write, and not the end
/// of the process.
///
/// # Errors
/// `Code::Internal` where the signal cannot be caught.
pub(super) fn outlive_file_limits() -> Result<()> {
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
