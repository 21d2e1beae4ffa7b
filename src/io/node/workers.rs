//! Workers: threads that do what may block for as long as disks do, so that the control thread does
//! not.
//!
//! Each piece of work gets a thread of its own, which ends with it. Where the system gives no more
//! threads, the work stands in line for one that was made when the node started: it takes longer
//! then, and nothing is lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use crossbeam_channel::{Sender, unbounded};

use super::node_transfer::{EventSender, NodeEvent};
use crate::core::error::{Code, Error, Result};

/// The workers of a node.
pub(super) struct WorkerPool {
    post: EventSender,
    /// Work that found no thread. Bounded by the transfers: each has at most a few pieces of work
    /// under way.
    line: Sender<WorkerJob>,
    /// Pieces of work whose notes have not come.
    pub(super) busy: usize,
}

type WorkerJob = Box<dyn FnOnce() + Send>;

impl WorkerPool {
    /// Starts the one that is always there.
    ///
    /// # Errors
    /// `Code::Internal` where the system gives no thread.
    pub(super) fn start(post: EventSender) -> Result<WorkerPool> {
        let (line, jobs) = unbounded::<WorkerJob>();
        let work = move || jobs.iter().for_each(|job| job());
        Builder::new().name("worker".into()).spawn(work).map_err(|error| {
            Error::new(Code::Internal, format!("no thread can be made: {error}"))
                .remedy("raise the limit of threads: TasksMax= of a unit, ulimit -u")
        })?;
        Ok(WorkerPool { post, line, busy: 0 })
    }

    /// Does `work` elsewhere. Its result comes back in the note that `note` makes of it, a panic as
    /// an error.
    pub(super) fn run<T: 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
        note: impl FnOnce(Result<T>) -> NodeEvent + Send + 'static,
    ) {
        self.busy += 1;
        let post = self.post.clone();
        let job: WorkerJob = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                Err(Error::new(
                    Code::Internal,
                    "a worker of this node failed: its standard error says where",
                ))
            });
            post.send(note(result));
        });
        // A thread that cannot be made takes what it was to run along: it is handed over once the
        // thread runs.
        let held = Arc::new(Mutex::new(Some(job)));
        let take = |held: &Mutex<Option<WorkerJob>>| {
            held.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let for_thread = Arc::clone(&held);
        let made = Builder::new()
            .name("worker".into())
            .spawn(move || take(&for_thread).into_iter().for_each(|job| job()));
        if made.is_err()
            && let Some(job) = take(&held)
        {
            // Its other end lives as long as the process.
            let _ = self.line.send(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::core::piece::TransferIx;

    #[test]
    fn work_that_panics_is_answered_with_an_error() {
        let (notes, inbox) = crossbeam_channel::bounded(4);
        let poll = Poll::new().expect("an event queue");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let mut workers = WorkerPool::start(EventSender::new(notes, waker)).expect("a thread");
        let work = || -> Result<()> { panic!("as a test") };
        workers.run(work, |result| NodeEvent::Committed { transfer: TransferIx(7), result });
        let Ok(NodeEvent::Committed { transfer: TransferIx(7), result: Err(error) }) = inbox.recv()
        else {
            panic!("no answer")
        };
        assert_eq!(error.code, Code::Internal);
        assert_eq!(workers.busy, 1, "until the note is read");
    }
}
