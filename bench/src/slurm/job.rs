//! A lab with Slurm, and jobs in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netlab::SlurmCluster;
use random::SplitMix;
use serde_json::Value;

use super::options::SlurmOptions;
use crate::cluster::{LabCluster, LabTools};
use crate::lab::WorkDir;

/// Number of nodes.
pub(super) const NODES: u32 = 4;

/// Resources of every case.
#[derive(Clone, Copy)]
pub(super) struct JobFixture<'a> {
    pub(super) options: &'a SlurmOptions,
    pub(super) lab: &'a WorkDir,
    pub(super) tools: &'a LabTools,
}

/// A cluster of four nodes, each with two NICs and a file system of its own.
pub(super) struct JobCluster<'a> {
    pub(super) slurm: SlurmCluster,
    pub(super) cluster: LabCluster<'a>,
    fixture: JobFixture<'a>,
    /// The program, which the processes of this cluster are known by.
    pub(super) program: PathBuf,
}

impl<'a> JobFixture<'a> {
    /// Starts a cluster whose NICs have this rate, with a source file that all nodes see.
    pub(super) fn cluster(&self, rate_mbit: u32, bytes: u64) -> Result<JobCluster<'a>> {
        let JobFixture { lab, tools, .. } = *self;
        let cluster = LabCluster::without_daemons(lab, tools, NODES, &[rate_mbit; 2])?;
        let (folder, programs) = (lab.path("program"), lab.path("bin"));
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(&programs)?;
        let program = folder.join("cep-fast");
        fs::copy(&tools.cep_fast, &program)?;
        // Copies and transfers of job scripts are reported to a file.
        let reports = lab.path("reports");
        let wrapper = programs.join("cep-fast");
        let text = format!(
            "#!/bin/sh\ncase $1 in\ncopy|run) exec {program} \"$@\" --json >>{reports} ;;\n*) \
             exec {program} \"$@\" ;;\nesac\n",
            program = program.display(),
            reports = reports.display()
        );
        fs::write(&wrapper, text)?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        let slurm =
            SlurmCluster::start(cluster.network(), NODES, &lab.path("slurm"), &programs, "")?;
        let source = lab.path("source");
        if fs::metadata(&source).map_or(true, |about| about.len() != bytes) {
            make(&source, bytes)?;
        }
        Ok(JobCluster { slurm, cluster, fixture: *self, program })
    }
}

impl JobCluster<'_> {
    /// Replaces `OWN` by each node's own directory, and `ALL` by the one that all see.
    pub(super) fn placed(&self, text: &str) -> String {
        let (own, all) = (self.slurm.own().display().to_string(), self.fixture.lab.path(""));
        let all = all.display().to_string();
        text.replace("OWN", &own).replace("ALL", all.trim_end_matches('/'))
    }

    /// Submits a script for all nodes.
    pub(super) fn submit(&self, options: &[&str], script: &str) -> Result<u32> {
        let file = self.fixture.lab.path("script");
        fs::write(&file, self.placed(&format!("#!/bin/bash\nset -euo pipefail\n{script}")))?;
        let nodes = format!("--nodes={NODES}");
        let options = [&[nodes.as_str()], options].concat();
        Ok(self.slurm.submit(self.cluster.network(), &options, &file, &[])?)
    }

    /// Submits a script for all nodes, and returns what it prints. It has to succeed.
    pub(super) fn run(&self, script: &str) -> Result<String> {
        let job = self.submit(&[], script)?;
        self.finished(job)
    }

    /// Submits a job script of the documents; see [`JobCluster::run`].
    pub(super) fn run_file(&self, script: &Path, arguments: &[&str]) -> Result<String> {
        let arguments: Vec<String> = arguments.iter().map(|word| self.placed(word)).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let job = self.slurm.submit(self.cluster.network(), &[], script, &arguments)?;
        self.finished(job)
    }

    fn finished(&self, job: u32) -> Result<String> {
        let (state, _) = self.end_of(job)?;
        let output = self.slurm.output(job);
        ensure!(state == "COMPLETED", "the job {state}: {output}");
        Ok(output)
    }

    /// Waits for the end of a job, and returns its state and the status of its script.
    pub(super) fn end_of(&self, job: u32) -> Result<(String, String)> {
        let within = Duration::from_secs(self.fixture.options.deadline);
        Ok(self.slurm.end_of(self.cluster.network(), job, within)?)
    }

    /// Returns the reports of all transfers since the last call.
    pub(super) fn reports(&self) -> Result<Vec<Value>> {
        let file = self.fixture.lab.path("reports");
        let text = fs::read_to_string(&file).unwrap_or_default();
        fs::write(&file, "")?;
        let report = |line| serde_json::from_str(line).context("a report is no JSON");
        text.lines().map(report).collect()
    }
}

/// Writes random bytes.
fn make(path: &Path, bytes: u64) -> Result<()> {
    let mut random = SplitMix::new(7);
    let mut block = vec![0; 1 << 20];
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    for _ in 0..bytes.div_ceil(1 << 20) {
        random.fill(&mut block);
        std::io::Write::write_all(&mut file, &block)?;
    }
    file.into_inner()?.set_len(bytes)?;
    Ok(())
}
