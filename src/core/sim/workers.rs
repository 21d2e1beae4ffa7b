//! The workers of a simulated node: work on files, done when its time is over.

use std::collections::BTreeMap;

use super::transfer::SharedDisk;
use crate::core::node::machine::{ClearMode, JobAnswer, NodeJob, OpenedFiles};
use crate::core::piece::TransferIx;
use crate::core::wire::control::Prepare;

/// A piece of work.
pub(super) enum WorkerTask {
    Open(Box<Prepare>),
    Job(NodeJob),
}

/// A piece of work with the files that it is done on. It has them even if its attempt is over.
pub(super) struct SimJob {
    pub(super) transfer: TransferIx,
    disk: SharedDisk,
    task: WorkerTask,
}

/// Work that is under way at a node.
#[derive(Default)]
pub(super) struct SimWorkers {
    made: u64,
    jobs: BTreeMap<u64, SimJob>,
}

impl SimWorkers {
    /// Begins a piece of work. Returns its number.
    pub(super) fn begin(
        &mut self,
        transfer: TransferIx,
        disk: SharedDisk,
        task: WorkerTask,
    ) -> u64 {
        self.made += 1;
        self.jobs.insert(self.made, SimJob { transfer, disk, task });
        self.made
    }

    /// Takes a piece of work that is to be done now, unless it has been.
    pub(super) fn take(&mut self, job: u64) -> Option<SimJob> {
        self.jobs.remove(&job)
    }

    /// Returns the number of the work that opens the files of a transfer.
    pub(super) fn opening(&self, transfer: TransferIx) -> Option<u64> {
        let opens = |it: &SimJob| it.transfer == transfer && matches!(it.task, WorkerTask::Open(_));
        self.jobs.iter().find(|(_, it)| opens(it)).map(|(&job, _)| job)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The process is gone, and its work with it.
    pub(super) fn crash(&mut self) {
        for job in std::mem::take(&mut self.jobs).into_values() {
            job.disk.borrow_mut().crash();
        }
    }
}

impl SimJob {
    /// Does the work.
    pub(super) fn run(&self) -> JobAnswer {
        let mut disk = self.disk.borrow_mut();
        let job = match &self.task {
            WorkerTask::Open(prepare) => {
                let opened = disk.prepare(prepare);
                return JobAnswer::Opened(
                    opened.map(|it| OpenedFiles { prepared: it.prepared, found: it.found }),
                );
            }
            WorkerTask::Job(job) => job,
        };
        match job {
            NodeJob::Preallocate(room) => JobAnswer::Preallocated(disk.preallocate(room)),
            NodeJob::Extend { wanted, holes } => JobAnswer::Extended(disk.extend(wanted, holes)),
            NodeJob::Keep { .. } => {
                disk.flush();
                JobAnswer::Flushed
            }
            NodeJob::Commit { landed_everywhere, checks } => {
                JobAnswer::Committed(disk.commit(*landed_everywhere, checks))
            }
            NodeJob::Leave { forgets } => {
                disk.discard(*forgets, false);
                JobAnswer::Left
            }
            NodeJob::Clear(ClearMode::Confirm) => {
                disk.confirm();
                JobAnswer::Cleared(Ok(()))
            }
            NodeJob::Clear(ClearMode::Discard { forgets, departs }) => {
                disk.discard(*forgets, *departs);
                JobAnswer::Cleared(Ok(()))
            }
            NodeJob::Confirm => {
                disk.confirm();
                JobAnswer::Confirmed
            }
        }
    }

    /// Returns the work of a job, unless it opens files.
    pub(super) fn job(&self) -> Option<&NodeJob> {
        match &self.task {
            WorkerTask::Job(job) => Some(job),
            WorkerTask::Open(_) => None,
        }
    }
}
