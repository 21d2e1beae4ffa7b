//! Working folder of one benchmark: its source file, destinations and logs, and the deadline of its
//! processes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statvfs::statvfs;
use random::SplitMix;

use crate::process::RunningProcess;
use crate::scenario::{BenchFiles, BenchScenario, WorkItem};

const BLOCK_BYTES: usize = 1 << 20;
/// Prefix of the folders' names, which end with the number of the owning process.
const FOLDER_PREFIX: &str = "run-";

/// A folder that is removed on drop.
pub(crate) struct WorkDir {
    folder: PathBuf,
    bytes: u64,
    /// Deadline of each process.
    limit: Duration,
}

impl WorkDir {
    /// Creates a working folder below `parent` for work of `bytes` bytes, and removes those of dead
    /// benchmarks there.
    pub(crate) fn new(parent: &Path, bytes: u64, limit: Duration) -> Result<WorkDir> {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        // Peers want absolute paths.
        let parent = fs::canonicalize(parent)?;
        remove_left_over(&parent)?;
        let folder = parent.join(format!("{FOLDER_PREFIX}{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(WorkDir { folder, bytes, limit })
    }

    /// Returns a path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts a process whose logs go to the folder.
    pub(crate) fn start(&self, name: &str, command: Command) -> Result<RunningProcess> {
        RunningProcess::start(name, command, &self.folder, self.limit)
    }

    /// Returns the size of its source file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Prepares the work of a scenario for timing: the source is cached, the destination absent,
    /// and no writeback of the run before is pending.
    pub(crate) fn prepare(&self, scenario: BenchScenario) -> Result<WorkItem> {
        self.prepare_part(scenario, self.bytes)
    }

    /// Prepares work on the first `bytes` bytes of the source.
    pub(crate) fn prepare_part(&self, scenario: BenchScenario, bytes: u64) -> Result<WorkItem> {
        if scenario == BenchScenario::MemoryToMemory {
            return Ok(WorkItem { bytes, files: None });
        }
        ensure!(bytes <= self.bytes, "the source has {} bytes, not {bytes}", self.bytes);
        let files =
            BenchFiles { source: self.path("source"), destination: self.path("destination") };
        if !files.source.exists() {
            self.make_source(&files.source)?;
        }
        nix::unistd::sync();
        io::copy(&mut File::open(&files.source)?, &mut io::sink())?;
        Ok(WorkItem { bytes, files: Some(files) })
    }

    /// Removes the destination, after comparing it if `compare` is true.
    pub(crate) fn clear(&self, work: &WorkItem, compare: bool) -> Result<()> {
        let Some(files) = &work.files else { return Ok(()) };
        let arrived =
            fs::metadata(&files.destination).context("no destination file after the run")?.len();
        ensure!(
            arrived == work.bytes,
            "{arrived} of {} bytes are in the destination file",
            work.bytes
        );
        if compare {
            let mut cmp = crate::process::command("cmp");
            cmp.args(["-n", &work.bytes.to_string()]).arg(&files.source).arg(&files.destination);
            self.start("cmp", cmp)?.finish().context("the destination differs from the source")?;
        }
        fs::remove_file(&files.destination)?;
        Ok(())
    }

    /// Removes the remains of a failed run.
    pub(crate) fn discard(&self, work: &WorkItem) {
        if let Some(files) = &work.files {
            // It may not exist.
            let _ = fs::remove_file(&files.destination);
            // The program may have kept nothing of it for a rerun.
            for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(".destination.") {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    fn make_source(&self, path: &Path) -> Result<()> {
        let space = statvfs(&self.folder)?;
        let free_bytes = space.blocks_available() * space.fragment_size();
        // The source, one destination, and room for the file system's own needs.
        let needed_bytes = self.bytes * 5 / 2;
        if free_bytes < needed_bytes {
            bail!(
                "{}: needs {needed_bytes} bytes free, has {free_bytes}; name another --dir",
                self.folder.display()
            );
        }
        let mut file = File::create_new(path)?;
        let mut random = SplitMix::new(1);
        let mut block = vec![0; BLOCK_BYTES];
        let mut left = self.bytes;
        while left > 0 {
            random.fill(&mut block);
            let bytes = left.min(BLOCK_BYTES as u64);
            file.write_all(&block[..bytes as usize])?;
            left -= bytes;
        }
        file.sync_all()?;
        Ok(())
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // The next benchmark removes what cannot be removed now.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes the working folders whose process is gone.
fn remove_left_over(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        let owner = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix(FOLDER_PREFIX));
        let Some(owner) = owner.and_then(|owner| owner.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where its set-up fails")]
mod tests {
    use super::*;

    #[test]
    fn a_lab_clears_its_own_and_dead_folders_only() {
        let parent = tempfile::tempdir().unwrap();
        // No process has a number beyond the kernel's limit of 2²².
        let (dead, other) = (parent.path().join("run-4194305"), parent.path().join("run-down"));
        fs::create_dir(&dead).unwrap();
        fs::create_dir(&other).unwrap();
        let lab = WorkDir::new(parent.path(), 1, Duration::from_secs(60)).unwrap();
        let own = lab.path("");
        assert!(own.exists() && !dead.exists() && other.exists());
        drop(lab);
        assert!(!own.exists() && other.exists());
    }

    #[test]
    fn a_short_or_different_destination_fails_the_run() {
        let parent = tempfile::tempdir().unwrap();
        let lab = WorkDir::new(parent.path(), 3 * BLOCK_BYTES as u64 + 1, Duration::from_secs(60))
            .unwrap();
        let work = lab.prepare(BenchScenario::FileToFile).unwrap();
        let files = work.files.as_ref().unwrap();
        let content = fs::read(&files.source).unwrap();
        assert!(lab.clear(&work, false).unwrap_err().to_string().contains("no destination"));
        fs::write(&files.destination, &content[1..]).unwrap();
        assert!(
            lab.clear(&work, false).unwrap_err().to_string().contains("3145728 of 3145729 bytes")
        );
        let mut changed = content.clone();
        changed[BLOCK_BYTES] ^= 1;
        fs::write(&files.destination, &changed).unwrap();
        assert!(lab.clear(&work, true).unwrap_err().to_string().contains("differs"));
        fs::write(&files.destination, &content).unwrap();
        lab.clear(&work, true).unwrap();
        assert!(!files.destination.exists());
    }
}
