//! The log on standard error: what a daemon writes for a journal, and what `-v` shows of the other
//! commands.
//!
//! The rest of the program speaks through [`tracing`]; a library user who has a subscriber of their
//! own hears it there. Here is what makes lines of it ([`mod@line`]), what keeps a flood of
//! refusals from filling a disk ([`mod@limiter`]), and the thread that writes: a reader of standard
//! error that does not read holds up nobody else. A log that cannot be written is no reason to
//! stop; what finds no room is counted and said later.

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

/// How the log was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogOptions {
    /// `-v`: also what is of use to somebody who looks for a fault.
    pub(crate) verbose: bool,
    /// `--log-json`: one JSON object a line.
    pub(crate) json: bool,
}

impl LogOptions {
    /// The same options as arguments of a node that this process launches. Without `-v` such a node
    /// logs nothing.
    fn arguments(self) -> Vec<&'static str> {
        let wanted = [(self.verbose, "-v"), (self.verbose && self.json, "--log-json")];
        wanted
            .into_iter()
            .filter_map(|(is_wanted, argument)| is_wanted.then_some(argument))
            .collect()
    }
}

/// Lines that wait for the writer. A burst fits; whoever does not read for longer loses lines.
const LINES_MAX: usize = 1024;
/// How long the end of the process waits for lines that are still to be written.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

static OPTIONS: OnceLock<LogOptions> = OnceLock::new();
static QUEUE: OnceLock<Sender<LogItem>> = OnceLock::new();
static LIMITER: Mutex<RefusalLimiter> = Mutex::new(RefusalLimiter::new());
/// Lines that found no room in the queue, and nobody has been told of.
static LOST: AtomicU64 = AtomicU64::new(0);

enum LogItem {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// Starts to write what is at least as grave as `least`. A process has one log: the first call
/// counts.
pub(crate) fn install(options: LogOptions, least: Level) {
    if OPTIONS.set(options).is_err() {
        return;
    }
    let (queue, lines) = bounded(LINES_MAX);
    // Where no thread is to be had, lines are written by whoever has something to say.
    if std::thread::Builder::new().name("log".into()).spawn(move || write_all(&lines)).is_ok() {
        let _ = QUEUE.set(queue);
    }
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(least)
        .log_internal_errors(false)
        .event_format(LogFormat { json: options.json })
        .with_writer(QueueWriter)
        .finish();
    // Another subscriber of the process, if there is one, keeps what it has.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// What makes the nodes that this process launches log as it does.
pub(crate) fn node_arguments() -> Vec<&'static str> {
    OPTIONS.get().map_or(Vec::new(), |options| options.arguments())
}

/// Logs that somebody was refused. Of one `kind` and address one line is written in ten seconds;
/// the others are counted.
pub(crate) fn refused(kind: &'static str, from: Option<IpAddr>, why: &dyn Display) {
    if !tracing::enabled!(Level::WARN) || !limiter().admit(Instant::now(), kind, from) {
        return;
    }
    match from {
        Some(from) => tracing::warn!(kind, %from, "refused: {why}"),
        None => tracing::warn!(kind, "refused: {why}"),
    }
}

/// A line of a command on standard error, led by the program's name. Nothing happens where nobody
/// can read there (the disk is full, the reader is gone): the macros of the standard library would
/// end the thread.
pub(crate) fn print_error_line(what: &str) {
    let line = format!("cep-fast: {}\n", crate::core::units::printable(what));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Says what somebody should know though all goes on: as a line of the log where there is one, else
/// plainly on standard error. Either way nobody who does not read there holds anything up for long,
/// and a log of JSON stays one.
pub(crate) fn say(what: &str) {
    if tracing::enabled!(Level::WARN) {
        tracing::warn!("{what}");
    } else {
        write(format!("cep-fast: {what}\n").as_bytes());
    }
}

/// Writes what is still to be written, for a second at most.
pub(crate) fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    limiter().all().into_iter().for_each(say_held_back);
    let deadline = Instant::now() + FLUSH_WITHIN;
    let (done, wait) = bounded(1);
    if queue.send_deadline(LogItem::Flush(done), deadline).is_ok() {
        // Whoever reads the log may have stopped reading.
        let _ = wait.recv_deadline(deadline);
    }
}

fn limiter() -> std::sync::MutexGuard<'static, RefusalLimiter> {
    LIMITER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log's thread: writes lines, and tells of refusals that were held back once their ten seconds
/// are over.
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

/// A log that cannot be written (the disk is full, its reader is gone) is no reason to stop.
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
