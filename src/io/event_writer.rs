//! A file, or standard output, that takes one line after another and holds up nobody: lines wait in
//! a bounded queue for a thread of their own, and where there is no room they are not taken.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};

use crate::core::error::{Code, Error, Result};

/// Limit on lines that wait.
const LINES_MAX: usize = 4096;
/// Limit on the bytes of lines that wait, but for one line that is longer.
const BYTES_MAX: usize = 8 << 20;
/// Time at the end in which a file takes nothing, after which it is given up.
const PATIENCE: Duration = Duration::from_secs(2);
/// Interval of looks at a file that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A writer of lines.
#[derive(Debug)]
pub(crate) struct EventWriter {
    lines: Sender<String>,
    shared: Arc<WriterShared>,
    ended: Receiver<()>,
    is_stdout: bool,
}

#[derive(Debug, Default)]
struct WriterShared {
    waiting_bytes: AtomicUsize,
    /// Number of lines that were written.
    written: AtomicU64,
    /// Why nothing more is written.
    error: OnceLock<String>,
}

impl EventWriter {
    /// Opens a file, which is made if it is not there, and to whose end lines are added.
    ///
    /// # Errors
    /// `Data` if it cannot be opened.
    pub(crate) fn file(path: &Path) -> Result<EventWriter> {
        let failed = |error: &io::Error| {
            Error::new(Code::Data, format!("{}: cannot be written: {error}", path.display()))
                .remedy("choose another file for --events")
        };
        // Opening a FIFO waits for a reader: that is for the thread.
        if path.metadata().is_ok_and(|it| it.file_type().is_fifo()) {
            let path = path.to_owned();
            return EventWriter::start(
                move || open(&path).map(|file| Box::new(file) as Box<_>),
                false,
            );
        }
        let mut file = open(path).map_err(|error| failed(&error))?;
        // A line that a killed process left unfinished stays a line of its own.
        if ends_within_a_line(path) {
            file.write_all(b"\n").map_err(|error| failed(&error))?;
        }
        EventWriter::start(move || Ok(Box::new(file)), false)
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// `Internal` if there can be no thread.
    pub(crate) fn stdout() -> Result<EventWriter> {
        EventWriter::start(|| Ok(Box::new(io::stdout())), true)
    }

    fn start(
        open: impl FnOnce() -> io::Result<Box<dyn Write>> + Send + 'static,
        is_stdout: bool,
    ) -> Result<EventWriter> {
        let (lines, queue) = bounded::<String>(LINES_MAX);
        let (end, ended) = bounded(1);
        let shared = Arc::new(WriterShared::default());
        let its = Arc::clone(&shared);
        let write = move || {
            its.write_all(open, &queue);
            drop(end);
        };
        std::thread::Builder::new().name("events".into()).spawn(write).map_err(|error| {
            Error::new(Code::Internal, format!("no thread can be made to write events: {error}"))
                .remedy("raise the limit of threads: ulimit -u")
        })?;
        Ok(EventWriter { lines, shared, ended, is_stdout })
    }

    /// Takes a line, without its end. Returns false if there is no room for it.
    pub(crate) fn push(&self, line: String) -> bool {
        if self.shared.error.get().is_some() {
            return true;
        }
        let bytes = line.len();
        let waiting = self.shared.waiting_bytes.load(Ordering::Relaxed);
        if waiting > 0 && waiting + bytes > BYTES_MAX {
            return false;
        }
        self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_taken = self.lines.try_send(line).is_ok();
        if !is_taken {
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_taken
    }

    /// Takes a line, and waits until there is room for it: as long as it takes on standard output,
    /// as with every result, and until a file has taken nothing for two seconds. Returns false
    /// then.
    pub(crate) fn push_last(&self, line: String) -> bool {
        let mut line = Some(line);
        self.wait_until(|wait| {
            let Some(unsent) = line.take() else { return true };
            let bytes = unsent.len();
            self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
            if let Err(SendTimeoutError::Timeout(unsent)) = self.lines.send_timeout(unsent, wait) {
                self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                line = Some(unsent);
            }
            line.is_none()
        })
    }

    /// Waits for what `is_done` waits a while for. Returns false if a file took nothing meanwhile.
    fn wait_until(&self, mut is_done: impl FnMut(Duration) -> bool) -> bool {
        let written = || self.shared.written.load(Ordering::Relaxed);
        let mut before = (written(), Instant::now());
        while !is_done(LOOK_EVERY) {
            if written() > before.0 {
                before = (written(), Instant::now());
            }
            if !self.is_stdout && before.1.elapsed() >= PATIENCE {
                return false;
            }
        }
        true
    }

    /// Returns why nothing more is written, once that is so.
    pub(crate) fn error(&self) -> Option<&str> {
        self.shared.error.get().map(String::as_str)
    }

    /// Waits until all lines are written, like [`EventWriter::push_last`]. Returns why not all
    /// could be.
    pub(crate) fn finish(mut self) -> Option<String> {
        self.lines = bounded(0).0;
        // The thread ends without a word.
        let is_done = self.wait_until(|wait| {
            self.ended.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected)
        });
        if is_done { self.shared.error.get().cloned() } else { Some("nobody reads it".into()) }
    }
}

impl WriterShared {
    /// The thread: writes all lines, until one cannot be written.
    fn write_all(
        &self,
        open: impl FnOnce() -> io::Result<Box<dyn Write>>,
        lines: &Receiver<String>,
    ) {
        let mut file = open();
        for mut line in lines {
            self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            line.push('\n');
            let written = match &mut file {
                Ok(file) => file.write_all(line.as_bytes()).and_then(|()| file.flush()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            if let Err(error) = written {
                // What follows part of a line would be no line.
                let _ = self.error.set(error.to_string());
                return;
            }
            self.written.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Opens a file to add to it. What is told of files and hosts is for its owner, unless the file is
/// there with other rights.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Returns true if a file has bytes and the last one ends no line. One that cannot be read is
/// believed.
fn ends_within_a_line(path: &Path) -> bool {
    let last = || -> io::Result<[u8; 1]> {
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Ok(*b"\n");
        }
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        Ok(last)
    };
    last().is_ok_and(|last| last != *b"\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn lines_are_added_to_a_file_of_ones_own_and_an_unfinished_one_stays_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        for _ in 0..2 {
            let writer = EventWriter::file(&path).unwrap();
            assert!(writer.push("a".into()) && writer.push("b".into()));
            assert_eq!(writer.finish(), None);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\na\nb\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"to").unwrap();
        let writer = EventWriter::file(&path).unwrap();
        assert!(writer.push("c".into()));
        assert_eq!(writer.finish(), None);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("\nto\nc\n"));
        let error = EventWriter::file(folder.path()).unwrap_err();
        assert!(error.code == Code::Data && error.remedy.is_some(), "{error}");
    }

    #[test]
    fn a_fifo_that_nobody_reads_takes_what_has_room_and_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = |name: &str| {
            let path = folder.path().join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            path
        };
        let path = fifo("unread");
        let writer = EventWriter::file(&path).unwrap();
        let taken = (0..2 * LINES_MAX).filter(|at| writer.push(at.to_string())).count();
        assert!((LINES_MAX..=LINES_MAX + 1).contains(&taken), "{taken}");
        assert!(writer.finish().is_some());

        let path = fifo("read late");
        let writer = EventWriter::file(&path).unwrap();
        let long = "x".repeat(BYTES_MAX / 2);
        let taken = (0..10).filter(|_| writer.push(long.clone())).count();
        assert_eq!(taken, 2, "the bytes have a limit, too");
        assert_eq!(writer.error(), None);
        // A reader that comes late gets what waits.
        let reader = std::thread::spawn(move || std::fs::read_to_string(&path).unwrap());
        assert_eq!(writer.finish(), None);
        assert_eq!(reader.join().unwrap().lines().count(), 2);
    }

    #[test]
    fn a_full_disk_ends_the_lines_and_nothing_else() {
        let writer = EventWriter::file(Path::new("/dev/full")).unwrap();
        assert!(writer.push("a".into()));
        while writer.error().is_none() {
            std::thread::yield_now();
        }
        assert!(writer.push("b".into()), "it is not missed for want of room");
        assert!(writer.finish().is_some_and(|why| why.contains("space")));
    }
}
