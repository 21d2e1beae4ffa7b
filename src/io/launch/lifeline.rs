//! Lifeline: the standard input of a launched node. It ends with its launcher, and over a network
//! that may vanish without a word, a line comes every two seconds.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ChildStdin;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::io::clock::awake;

/// Interval of lines.
const BEAT: Duration = Duration::from_secs(2);
/// Time for a launcher to give orders and key.
const ORDERS_WITHIN: Duration = Duration::from_secs(30);
/// Time without one after which a node counts its launcher as out of reach.
const SILENT_AFTER: u16 = 6_000;

/// The launcher's end of the lifelines of many nodes. They end on drop.
pub(super) struct HostLifelines {
    held: Arc<Mutex<Vec<ChildStdin>>>,
    /// Its end is that of the thread.
    _running: Sender<()>,
}

impl HostLifelines {
    /// Starts the thread that keeps them alive.
    pub(super) fn start() -> io::Result<HostLifelines> {
        let held: Arc<Mutex<Vec<ChildStdin>>> = Arc::default();
        let (running, is_over) = channel::<()>();
        let lines = Arc::clone(&held);
        let beat = move || {
            while is_over.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                // A node that has ended reads no more of them.
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.iter_mut().for_each(|line| drop(line.write_all(b"\n")));
            }
        };
        thread::Builder::new().name("lifelines".into()).spawn(beat)?;
        Ok(HostLifelines { held, _running: running })
    }

    /// Returns where a line is added once its node has its orders.
    pub(super) fn holder(&self) -> LifelineHolder {
        LifelineHolder(Arc::clone(&self.held))
    }

    /// Ends them all.
    pub(super) fn end(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for HostLifelines {
    fn drop(&mut self) {
        self.end();
    }
}

/// Adds lifelines.
#[derive(Clone)]
pub(super) struct LifelineHolder(Arc<Mutex<Vec<ChildStdin>>>);

impl LifelineHolder {
    /// Holds one. Its pipe is far from full for days: a beat never waits for its reader.
    pub(super) fn hold(&self, stdin: ChildStdin) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stdin);
    }
}

/// Input with a deadline: standard input of a launched node until it has its orders and its key,
/// and a session until it leads to its node. What does not come in time is an error: nothing else
/// would end the wait where a network vanished by then.
#[derive(Debug)]
pub(crate) struct TimedInput {
    input: File,
    /// `None` once what was waited for has come.
    deadline: Option<Instant>,
}

impl TimedInput {
    /// Opens standard input. The library's buffer would keep a copy of the key.
    ///
    /// # Errors
    /// There is no standard input.
    pub(crate) fn open() -> io::Result<TimedInput> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(TimedInput::of(stdin, ORDERS_WITHIN))
    }

    /// Waits for what comes next as long as for what came first.
    pub(crate) fn wait_anew(&mut self) {
        self.deadline = Some(awake() + ORDERS_WITHIN);
    }

    /// Waits without a deadline from now on.
    pub(super) fn wait_on(&mut self) {
        self.deadline = None;
    }

    pub(super) fn of(input: File, within: Duration) -> TimedInput {
        TimedInput { input, deadline: Some(awake() + within) }
    }
}

impl Read for TimedInput {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(awake());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut polled = [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, timeout)? == 0 {
                let what = "the other side said nothing in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
        }
        self.input.read(bytes)
    }
}

/// Sign of the launcher that a node notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LauncherSign {
    /// It has ended, or gave the node up.
    Gone,
    /// Nothing came for some seconds: it may be out of reach.
    Silent,
    /// It is there again.
    Back,
}

/// Watches the node's end in a thread of its own, and calls `tell` for every change. `beats` says
/// that lines come; without them only the end counts.
///
/// # Errors
/// There is no standard input, or no thread.
pub(crate) fn watch(
    beats: bool,
    mut tell: impl FnMut(LauncherSign) + Send + 'static,
) -> io::Result<()> {
    // The library's buffer may hold what followed the secret.
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let timeout = if beats { PollTimeout::from(SILENT_AFTER) } else { PollTimeout::NONE };
    let follow = move || {
        let mut is_silent = false;
        loop {
            let ready = poll(&mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)], timeout);
            match ready {
                Err(Errno::EINTR) => continue,
                Ok(0) if !is_silent => {
                    is_silent = true;
                    tell(LauncherSign::Silent);
                }
                Ok(0) => {}
                Ok(_) => match stdin.read(&mut [0; 256]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(1..) if std::mem::take(&mut is_silent) => tell(LauncherSign::Back),
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return tell(LauncherSign::Gone),
                },
                Err(_) => return tell(LauncherSign::Gone),
            }
        }
    };
    thread::Builder::new().name("lifeline".into()).spawn(follow).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    /// A node whose network vanished before its orders came stayed for ever.
    #[test]
    fn orders_that_do_not_come_are_not_waited_for_without_end() {
        let (ours, mut launchers) = io::pipe().unwrap();
        let mut input = TimedInput::of(File::from(OwnedFd::from(ours)), Duration::ZERO);
        launchers.write_all(b"orders").unwrap();
        let mut bytes = [0; 16];
        assert_eq!(input.read(&mut bytes).unwrap(), 6, "what is there is read");
        assert_eq!(input.read(&mut bytes).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(launchers);
        assert_eq!(input.read(&mut bytes).unwrap(), 0, "the end is no silence");
    }
}
