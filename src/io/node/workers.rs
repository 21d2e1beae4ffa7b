//! Workers: threads that do what may block for as long as disks do, so that the control thread does
//! not.
//!
//! Each piece of work gets a thread of its own: one that has just ended another piece, or a new
//! one. Where the system gives no more threads, the work stands in line for a few that were made
//! when the node started: it takes longer then, and nothing is lost. No transfer has more than one
//! of those.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use super::inbox::{EventSender, InboxEvent};
use crate::core::error::{Code, Error, Result};
use crate::core::piece::TransferIx;

/// Workers that are always there: one that hangs with a transfer's disk leaves another.
const WORKERS_KEPT: usize = 2;

/// Time that a thread waits for another piece of work before it ends: the next one of a transfer
/// that begins or ends mostly comes sooner, and a node at rest is small.
const IDLE_WITHIN: Duration = Duration::from_secs(1);

/// The workers of a node.
pub(super) struct WorkerPool {
    post: EventSender,
    idle: Arc<IdleWorkers>,
    /// Work that found no thread. Bounded by the transfers: each has at most a few pieces of work
    /// under way.
    line: Arc<WorkLine>,
    /// Pieces of work whose notes have not come.
    pub(super) busy: usize,
}

/// Work with its note. A thread that will be idle says so before the note goes out.
type WorkerJob = Box<dyn FnOnce(Option<&IdleWorkers>) + Send>;

impl WorkerPool {
    /// Starts those that are always there.
    ///
    /// # Errors
    /// `Code::Internal` where the system gives no thread.
    pub(super) fn start(post: EventSender) -> Result<WorkerPool> {
        let line = Arc::<WorkLine>::default();
        for _ in 0..WORKERS_KEPT {
            let line = Arc::clone(&line);
            Builder::new().name("worker".into()).spawn(move || line.work()).map_err(|error| {
                Error::new(Code::Internal, format!("no thread can be made: {error}"))
                    .remedy("raise the limit of threads: TasksMax= of a unit, ulimit -u")
            })?;
        }
        Ok(WorkerPool { post, idle: Arc::default(), line, busy: 0 })
    }

    /// Does `work` elsewhere, for a transfer if it is one's. Its result comes back in the note that
    /// `note` makes of it, a panic as an error.
    pub(super) fn run<T: 'static>(
        &mut self,
        transfer: Option<TransferIx>,
        work: impl FnOnce() -> Result<T> + Send + 'static,
        note: impl FnOnce(Result<T>) -> InboxEvent + Send + 'static,
    ) {
        self.busy += 1;
        let post = self.post.clone();
        let job: WorkerJob = Box::new(move |idle| {
            let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                Err(Error::new(
                    Code::Internal,
                    "a worker of this node failed: its standard error says where",
                ))
            });
            idle.into_iter().for_each(IdleWorkers::join);
            post.send(note(result));
        });
        let Some(job) = self.idle.employ(job) else { return };
        // A thread that cannot be made takes what it was to run along: it is handed over once the
        // thread runs.
        let held = Arc::new(Mutex::new(Some(job)));
        let take = |held: &Mutex<Option<WorkerJob>>| {
            held.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let (for_thread, idle) = (Arc::clone(&held), Arc::clone(&self.idle));
        let made = Builder::new().name("worker".into()).spawn(move || {
            let mut next = take(&for_thread);
            while let Some(job) = next {
                job(Some(&idle));
                next = idle.next();
            }
        });
        if made.is_err()
            && let Some(job) = take(&held)
        {
            self.line.push(transfer, job);
        }
    }
}

/// Threads that have ended their work, and wait for more.
#[derive(Default)]
struct IdleWorkers {
    state: Mutex<IdleState>,
    has_work: Condvar,
}

/// Invariant: as many threads ask for work, or are about to, as are free and have a job here.
#[derive(Default)]
struct IdleState {
    free: usize,
    jobs: VecDeque<WorkerJob>,
}

impl IdleWorkers {
    /// Gives work to a free thread. Returns it where there is none.
    fn employ(&self, job: WorkerJob) -> Option<WorkerJob> {
        let mut state = self.state();
        if state.free == 0 {
            return Some(job);
        }
        state.free -= 1;
        state.jobs.push_back(job);
        self.has_work.notify_one();
        None
    }

    /// The calling thread is free. It calls `next` when it has told what it did.
    fn join(&self) {
        self.state().free += 1;
    }

    /// Work for a free thread, or none once it has waited for long: it ends.
    fn next(&self) -> Option<WorkerJob> {
        let waited =
            self.has_work.wait_timeout_while(self.state(), IDLE_WITHIN, |it| it.jobs.is_empty());
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let job = state.jobs.pop_front();
        state.free -= usize::from(job.is_none());
        job
    }

    fn state(&self) -> MutexGuard<'_, IdleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Work that stands in line for the workers that are always there.
#[derive(Default)]
struct WorkLine {
    state: Mutex<LineState>,
    has_changed: Condvar,
}

#[derive(Default)]
struct LineState {
    jobs: VecDeque<(Option<TransferIx>, WorkerJob)>,
    /// The transfers that the workers are at.
    at_work: Vec<TransferIx>,
}

impl LineState {
    /// The first piece of work of which no other of its transfer is done: a transfer whose disk
    /// hangs holds one worker, and the others go on.
    fn next(&mut self) -> Option<(Option<TransferIx>, WorkerJob)> {
        let is_due = |of: Option<TransferIx>| of.is_none_or(|of| !self.at_work.contains(&of));
        let at = self.jobs.iter().position(|(of, _)| is_due(*of))?;
        let (of, job) = self.jobs.remove(at)?;
        self.at_work.extend(of);
        Some((of, job))
    }

    fn ended(&mut self, of: Option<TransferIx>) {
        self.at_work.retain(|it| Some(*it) != of);
    }
}

impl WorkLine {
    fn push(&self, of: Option<TransferIx>, job: WorkerJob) {
        self.state().jobs.push_back((of, job));
        self.has_changed.notify_one();
    }

    /// Does what stands in line, for as long as the process lives.
    fn work(&self) {
        loop {
            let mut state = self.state();
            let (of, job) = loop {
                match state.next() {
                    Some(next) => break next,
                    None => {
                        let woken = self.has_changed.wait(state);
                        state = woken.unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(state);
            job(None);
            self.state().ended(of);
            // The work that waited for it may be another worker's.
            self.has_changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::core::node::machine::JobAnswer;

    #[test]
    fn work_that_panics_is_answered_with_an_error() {
        let (notes, inbox) = crossbeam_channel::bounded(4);
        let poll = Poll::new().expect("an event queue");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let mut workers = WorkerPool::start(EventSender::new(notes, waker)).expect("a thread");
        let work = || -> Result<()> { panic!("as a test") };
        workers.run(Some(TransferIx(7)), work, |result| {
            let answer = JobAnswer::Committed(result);
            InboxEvent::Worker { transfer: TransferIx(7), answer }
        });
        let Ok(InboxEvent::Worker { answer: JobAnswer::Committed(Err(error)), .. }) = inbox.recv()
        else {
            panic!("no answer")
        };
        assert_eq!(error.code, Code::Internal);
        assert_eq!(workers.busy, 1, "until the note is read");
    }

    #[test]
    fn work_that_comes_one_after_the_other_is_done_by_one_thread_and_work_at_once_by_several() {
        let (notes, inbox) = crossbeam_channel::bounded(64);
        let poll = Poll::new().expect("an event queue");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let mut workers = WorkerPool::start(EventSender::new(notes, waker)).expect("a thread");
        let (told, threads) = crossbeam_channel::unbounded();
        let mut seen = Vec::new();
        for _ in 0..32 {
            let told = told.clone();
            let work = move || {
                told.send(std::thread::current().id()).expect("the test listens");
                Ok(())
            };
            workers.run(None, work, |_| InboxEvent::Done);
            inbox.recv().expect("its note");
            seen.push(threads.recv().expect("it was done"));
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
        let (meet, met) = crossbeam_channel::bounded::<()>(0);
        let both = [true, false].map(|sends| (sends, meet.clone(), met.clone()));
        for (sends, meet, met) in both {
            let work = move || {
                if sends {
                    meet.send(()).expect("the other is at work, too");
                } else {
                    met.recv().expect("the other is at work, too");
                }
                Ok(())
            };
            workers.run(None, work, |_| InboxEvent::Done);
        }
        for _ in 0..2 {
            inbox.recv().expect("neither waits for the other's thread");
        }
    }

    #[test]
    fn a_transfer_whose_disk_hangs_does_not_hold_all_workers_that_are_left() {
        let line = Arc::<WorkLine>::default();
        let (hanging, other) = (Some(TransferIx(1)), Some(TransferIx(2)));
        let (thaw, frozen) = crossbeam_channel::bounded::<()>(0);
        let (done, ended) = crossbeam_channel::unbounded();
        for what in 0..3 {
            let (frozen, done) = (frozen.clone(), done.clone());
            let job = move |_: Option<&IdleWorkers>| {
                let _ = frozen.recv();
                done.send((1, what)).expect("the test listens");
            };
            line.push(hanging, Box::new(job));
        }
        for what in 0..2 {
            let done = done.clone();
            let job = move |_: Option<&IdleWorkers>| {
                done.send((2, what)).expect("the test listens");
            };
            line.push(other, Box::new(job));
        }
        for _ in 0..WORKERS_KEPT {
            let line = Arc::clone(&line);
            std::thread::spawn(move || line.work());
        }
        let within = Duration::from_secs(20);
        let next = || ended.recv_timeout(within).expect("a worker is left");
        assert_eq!([next(), next()], [(2, 0), (2, 1)]);
        drop(thaw);
        assert_eq!([next(), next(), next()], [(1, 0), (1, 1), (1, 2)], "in their order");
    }
}
