//! Work on the files of transfers, done by worker threads, which answer through the inbox.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::file_budget::FileBudget;
use super::inbox::{EventSender, InboxEvent};
use super::options::NodeOptions;
use super::reading::ReadProgress;
use super::surveys::SurveyJob;
use super::workers::WorkerPool;
use super::{keeping, prepare, replicas, surveys};
use crate::core::error::{Error, Result};
use crate::core::node::machine::{ClearMode, JobAnswer, NodeJob, SessionIx};
use crate::core::piece::TransferIx;
use crate::core::wire::control::Prepare;
use crate::io::rail::RailHandle;
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::store::{DestinationClaim, RootOptions, Sink, StoreRoots};

/// The workers of a node, and what they open files with.
pub(super) struct FileWorkers {
    workers: WorkerPool,
    post: EventSender,
    budget: FileBudget,
    roots: RootOptions,
}

impl FileWorkers {
    /// Starts those that are always there.
    ///
    /// # Errors
    /// Those of [`WorkerPool::start`].
    pub(super) fn start(options: &NodeOptions, post: EventSender) -> Result<FileWorkers> {
        Ok(FileWorkers {
            workers: WorkerPool::start(post.clone())?,
            post,
            budget: FileBudget::default(),
            roots: options.roots.clone(),
        })
    }

    /// Returns true if pieces of work are under way.
    pub(super) fn are_busy(&self) -> bool {
        self.workers.busy > 0
    }

    /// An event of the inbox was read.
    pub(super) fn note(&mut self, event: &InboxEvent) {
        self.workers.busy -= usize::from(event.is_work());
    }

    /// Opens the files of a transfer, at a node with so many `rails`. `quits` is set when nobody
    /// waits for them any more.
    pub(super) fn open(
        &mut self,
        transfer: TransferIx,
        prepare: Prepare,
        rails: usize,
        quits: Arc<AtomicBool>,
    ) {
        let roots = self.roots.clone();
        let (post, budget) = (self.post.clone(), self.budget.clone());
        let work = move || {
            let _claim = budget.claim(&prepare, rails)?;
            let mut tell = |read_bytes| post.send(InboxEvent::Reading { transfer, read_bytes });
            // Anew for each transfer: something may have been mounted on one, or have taken its
            // name.
            let roots = StoreRoots::open(&roots)?;
            let mut reading = ReadProgress::new(&mut tell, &quits);
            let mut opened = prepare::open(&roots, &prepare, rails, &mut reading)?;
            match replicas::compare(&mut opened, &prepare, &mut reading) {
                Ok(()) => Ok(Box::new(opened)),
                Err(error) => {
                    prepare::discard(&opened.transfer_files.sinks, false, false);
                    Err(error)
                }
            }
        };
        self.workers
            .run(Some(transfer), work, move |result| InboxEvent::Opened { transfer, result });
    }

    /// Does something with the files of a transfer; `elected` says of each destination whether its
    /// name waits for the other nodes. The `claims` end.
    pub(super) fn work(
        &mut self,
        transfer: TransferIx,
        job: NodeJob,
        files: Arc<TransferFiles>,
        claims: Vec<DestinationClaim>,
        elected: Vec<bool>,
    ) {
        if let NodeJob::Keep { pieces } = &job {
            // Handed over here and now, so that whatever is done with the files next finds it.
            keeping::keep(&files, pieces);
        }
        let failed = failed_answer(&job);
        let work = move || {
            drop(claims);
            Ok(carry_out_job(&files, job, &elected))
        };
        self.workers.run(Some(transfer), work, move |result| {
            let answer = result.unwrap_or_else(failed);
            InboxEvent::Worker { transfer, answer }
        });
    }

    /// Answers the questions of a session's survey.
    pub(super) fn survey(&mut self, session: SessionIx, job: SurveyJob) {
        let (roots, count) = (self.roots.clone(), job.questions.len());
        let work = move || Ok(surveys::carry_out(&StoreRoots::open(&roots)?, job));
        self.workers.run(None, work, move |result| {
            let result = result.unwrap_or_else(|error| surveys::all_failed(count, &error));
            InboxEvent::Surveyed { session, result }
        });
    }

    /// Drops something elsewhere.
    pub(super) fn let_go(&mut self, what: impl Send + 'static) {
        let work = move || {
            drop(what);
            Ok(())
        };
        self.workers.run(None, work, |_| InboxEvent::Done);
    }

    /// Ends rails, which waits for their threads.
    pub(super) fn end_rails(&mut self, rails: Vec<RailHandle>) {
        let work = move || {
            drop(rails);
            Ok(())
        };
        self.workers.run(None, work, |_| InboxEvent::Rested);
    }
}

/// Work on the files of a transfer; `elected` says of each destination whether its
/// name waits for the other nodes.
fn carry_out_job(files: &TransferFiles, job: NodeJob, elected: &[bool]) -> JobAnswer {
    match job {
        NodeJob::Preallocate(room) => JobAnswer::Preallocated(prepare::preallocate(files, &room)),
        NodeJob::Extend { wanted, holes } => {
            JobAnswer::Extended(prepare::make_room(files, &wanted, &holes, &holes))
        }
        NodeJob::Keep { .. } => {
            files.sinks.iter().for_each(Sink::flush);
            JobAnswer::Flushed
        }
        NodeJob::Commit { landed_everywhere, checks } => {
            JobAnswer::Committed(prepare::commit(files, elected, landed_everywhere, &checks))
        }
        NodeJob::Leave { forgets } => {
            prepare::discard(&files.sinks, forgets, false);
            JobAnswer::Left
        }
        NodeJob::Clear(mode) => {
            match mode {
                ClearMode::Confirm => files.sinks.iter().for_each(Sink::confirm),
                ClearMode::Discard { forgets, departs } => {
                    prepare::discard(&files.sinks, forgets, departs);
                }
            }
            // A source that was written to meanwhile may have been sent half old, half new.
            let mut sources = files.offers.iter();
            JobAnswer::Cleared(sources.try_for_each(|offer| offer.source.check_unchanged()))
        }
        NodeJob::Confirm => {
            files.sinks.iter().for_each(Sink::confirm);
            JobAnswer::Confirmed
        }
    }
}

/// Returns the answer of a worker that panics.
fn failed_answer(job: &NodeJob) -> fn(Error) -> JobAnswer {
    match job {
        NodeJob::Preallocate(_) => |error| JobAnswer::Preallocated(Err(error)),
        NodeJob::Extend { .. } => |error| JobAnswer::Extended(Err(error)),
        NodeJob::Keep { .. } => |_| JobAnswer::Flushed,
        NodeJob::Commit { .. } => |error| JobAnswer::Committed(Err(error)),
        NodeJob::Leave { .. } => |_| JobAnswer::Left,
        NodeJob::Clear(_) => |error| JobAnswer::Cleared(Err(error)),
        NodeJob::Confirm => |_| JobAnswer::Confirmed,
    }
}
