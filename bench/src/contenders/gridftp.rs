//! `GridFTP`, third party: the client only controls, and two sessions of the server move the bytes,
//! like two nodes.

use anyhow::Result;
use nix::unistd::Uid;

use super::contender::{Contender, RunTiming, missing_program, program};
use crate::lab::WorkDir;
use crate::process;
use crate::scenario::{BenchScenario, WorkItem};

pub(crate) const SERVER: &str = "globus-gridftp-server";
pub(crate) const CLIENT: &str = "globus-url-copy";

pub(super) struct GridFtp;

impl Contender for GridFtp {
    fn name(&self) -> &'static str {
        "gridftp"
    }

    fn plays(&self, _: BenchScenario) -> bool {
        true
    }

    fn missing(&self) -> Option<String> {
        missing_program(&[SERVER, CLIENT])
    }

    fn run(&self, lab: &WorkDir, work: &WorkItem) -> Result<RunTiming> {
        let port = process::free_port()?;
        let mut server = process::command(program(SERVER));
        server.args(["-p", &port.to_string(), "-control-interface", "127.0.0.1", "-aa"]);
        if Uid::effective().is_root() {
            server.args(["-anonymous-user", "root", "-allow-root"]);
        }
        let server = lab.start("gridftp-server", server)?;
        server.until_listening(port)?;
        let mut client = process::command(program(CLIENT));
        client.args(["-p", "2", "-bs", "4M"]);
        let (source, destination) = match &work.files {
            Some(files) => {
                (files.source.display().to_string(), files.destination.display().to_string())
            }
            None => {
                client.args(["-len", &work.bytes.to_string()]);
                ("/dev/zero".to_owned(), "/dev/null".to_owned())
            }
        };
        for path in [source, destination] {
            client.arg(format!("ftp://127.0.0.1:{port}{path}"));
        }
        Ok(RunTiming::wall(lab.start("gridftp-client", client)?.finish()?.seconds))
    }
}
