//! Log on standard error: the log of a daemon, and the output of `-v` for the other commands.
//!
//! The rest of the program logs through [`tracing`]; library users may have their own subscriber.
//! This module formats lines ([`mod@line`]), limits refusals so that a flood does not fill a disk
//! ([`mod@limiter`]), and writes in a thread of its own, so that a stalled reader of standard error
//! delays nothing else. A log that cannot be written does not stop the program; lost lines are
//! counted and reported later.

mod limiter;
mod line;

use std::fmt::Display;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use crate::io::log::limiter::{RefusalCount, RefusalLimiter};
use crate::io::log::line::LogFormat;
pub(crate) use crate::io::log::line::time_now;

/// Options of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogOptions {
    /// `-v`: also details for finding faults.
    pub(crate) verbose: bool,
    /// `--log-json`: one JSON object a line.
    pub(crate) json: bool,
}

impl LogOptions {
    /// Returns the same options as arguments for a launched node. Without `-v` such a node logs
    /// nothing.
    fn arguments(self) -> Vec<&'static str> {
        let wanted = [(self.verbose, "-v"), (self.verbose && self.json, "--log-json")];
        wanted
            .into_iter()
            .filter_map(|(is_wanted, argument)| is_wanted.then_some(argument))
            .collect()
    }
}

/// Limit on lines that wait for the writer. A burst fits; if the reader stalls for longer, lines
/// are lost.
const LINES_MAX: usize = 1024;
/// Time that the end of the process waits for unwritten lines.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

static OPTIONS: OnceLock<LogOptions> = OnceLock::new();
static QUEUE: OnceLock<Sender<LogItem>> = OnceLock::new();
static LIMITER: Mutex<RefusalLimiter> = Mutex::new(RefusalLimiter::new());
/// Lost lines that have not been reported yet.
static LOST: AtomicU64 = AtomicU64::new(0);

enum LogItem {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// Begins the log with all events from level `least` up. A process has one log: later calls are
/// ignored.
pub(crate) fn install(options: LogOptions, least: Level) {
    if OPTIONS.set(options).is_err() {
        return;
    }
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(least)
        .log_internal_errors(false)
        .event_format(LogFormat { json: options.json })
        .with_writer(QueueWriter)
        .finish();
    // An existing subscriber of the process stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Has lines written by a thread of their own from now on. Before, and where no thread can be made,
/// each thread writes its own.
pub(crate) fn write_apart() {
    if OPTIONS.get().is_none() || QUEUE.get().is_some() {
        return;
    }
    let (queue, lines) = bounded(LINES_MAX);
    if std::thread::Builder::new().name("log".into()).spawn(move || write_all(&lines)).is_ok() {
        let _ = QUEUE.set(queue);
    }
}

/// Returns the arguments that make launched nodes log like this process.
pub(crate) fn node_arguments() -> Vec<&'static str> {
    OPTIONS.get().map_or(Vec::new(), |options| options.arguments())
}

/// Logs a refusal. One line of each `kind` and address is written in ten seconds; the others are
/// counted.
pub(crate) fn refused(kind: &'static str, from: Option<IpAddr>, why: &dyn Display) {
    if !tracing::enabled!(Level::WARN) || !limiter().admit(Instant::now(), kind, from) {
        return;
    }
    match from {
        Some(from) => tracing::warn!(kind, %from, "refused: {why}"),
        None => tracing::warn!(kind, "refused: {why}"),
    }
}

/// Prints a line of a command on standard error, prefixed with the program's name. Errors (a full
/// disk, a closed reader) are ignored: the macros of the standard library would panic.
pub(crate) fn print_error_line(what: &str) {
    let line = format!("cep-fast: {}\n", crate::core::units::printable(what));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Prints a notice: as a line of the log if there is one, else directly on standard error. A
/// stalled reader delays nothing for long, and a JSON log stays valid.
pub(crate) fn say(what: &str) {
    if tracing::enabled!(Level::WARN) {
        tracing::warn!("{what}");
    } else {
        write(format!("cep-fast: {what}\n").as_bytes());
    }
}

/// Writes the remaining lines, for at most a second.
pub(crate) fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    limiter().all().into_iter().for_each(say_held_back);
    let deadline = Instant::now() + FLUSH_WITHIN;
    let (done, wait) = bounded(1);
    if queue.send_deadline(LogItem::Flush(done), deadline).is_ok() {
        // The reader may have stalled.
        let _ = wait.recv_deadline(deadline);
    }
}

fn limiter() -> std::sync::MutexGuard<'static, RefusalLimiter> {
    LIMITER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Thread of the log: writes lines, and reports suppressed refusals at the end of their ten
/// seconds.
fn write_all(lines: &Receiver<LogItem>) {
    loop {
        let due = limiter().due();
        let item = match due {
            Some(due) => lines.recv_deadline(due),
            // The first refusal of a window is a line in the queue.
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match item {
            Ok(LogItem::Line(line)) => write(&line),
            Ok(LogItem::Flush(done)) => drop(done.send(())),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        limiter().over(Instant::now()).into_iter().for_each(say_held_back);
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("{lost} lines of this log were lost: nobody read them in time");
        }
    }
}

fn say_held_back((kind, from, count): RefusalCount) {
    match from {
        Some(from) => tracing::warn!(kind, %from, "refused: {count} more like that"),
        None => tracing::warn!(kind, "refused: {count} more like that"),
    }
}

/// Errors are ignored: the disk may be full, or the reader closed.
fn write(line: &[u8]) {
    let _ = io::stderr().write_all(line);
}

/// Takes whole lines, and never waits.
struct QueueWriter;

impl<'a> MakeWriter<'a> for QueueWriter {
    type Writer = QueueWriter;

    fn make_writer(&'a self) -> QueueWriter {
        QueueWriter
    }
}

impl Write for QueueWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            None => write(line),
            Some(queue) => {
                if queue.try_send(LogItem::Line(line.to_vec())).is_err() {
                    LOST.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
