//! rclone over plain HTTP with four streams: its fastest way between two machines.

use anyhow::{Context, Result};

use super::contender::{Contender, RunTiming, missing_program, program};
use crate::lab::WorkDir;
use crate::process;
use crate::scenario::{BenchScenario, WorkItem};

pub(super) struct Rclone;

impl Contender for Rclone {
    fn name(&self) -> &'static str {
        "rclone"
    }

    fn plays(&self, scenario: BenchScenario) -> bool {
        scenario == BenchScenario::FileToFile
    }

    fn missing(&self) -> Option<String> {
        missing_program(&["rclone"])
    }

    fn run(&self, lab: &WorkDir, work: &WorkItem) -> Result<RunTiming> {
        let files = work.files.as_ref().context("rclone moves files")?;
        let (folder, name) = (files.source.parent(), files.source.file_name());
        let (folder, name) = folder.zip(name).context("the source is a file in a folder")?;
        let address = format!("127.0.0.1:{}", process::free_port()?);
        // An empty configuration of its own: a user's remotes and settings play no part.
        let config = lab.path("rclone.conf");
        std::fs::write(&config, "")?;
        let rclone = || {
            let mut command = process::command(program("rclone"));
            command.arg("--config").arg(&config);
            command
        };
        let mut server = rclone();
        server.args(["serve", "http", "--read-only", "--addr", &address]).arg(folder);
        let server = lab.start("rclone-server", server)?;
        let port = address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .context("an address ends in its port")?;
        server.until_listening(port)?;
        let mut client = rclone();
        client.args(["copyto", "--multi-thread-streams", "4", "--multi-thread-cutoff", "1M"]);
        client.arg("--http-url").arg(format!("http://{address}/"));
        client.arg(format!(":http:{}", name.display())).arg(&files.destination);
        Ok(RunTiming::wall(lab.start("rclone-client", client)?.finish()?.seconds))
    }
}
