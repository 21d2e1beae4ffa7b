//! Labs: nodes that are network namespaces with shaped NICs, and a daemon in each. Prints a note
//! and returns `None` where namespaces are not permitted.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use netlab::{LabScript, NetworkLab, address};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PROGRAM, cep_fast, code, end_of, folder, ready_address, run};

/// A lab that is removed with the test.
pub(crate) struct Lab {
    pub(crate) network: NetworkLab,
    daemons: Vec<Child>,
    pub(crate) folder: tempfile::TempDir,
}

impl Lab {
    /// `nodes` nodes with `nics` NICs of `rate` each, and a daemon on each; `None` where that is
    /// not permitted.
    pub(crate) fn up(nodes: u32, nics: u32, rate: &str) -> Option<Lab> {
        Lab::changed(nodes, nics, rate, &[])
    }

    /// Creates a lab with `changes` made before the daemons start: each a node and a command that
    /// runs in it.
    pub(crate) fn changed(
        nodes: u32,
        nics: u32,
        rate: &str,
        changes: &[(u32, &str)],
    ) -> Option<Lab> {
        let script = LabScript::of_repository();
        if let Some(obstacle) = script.obstacle().unwrap() {
            eprintln!("skipped: {obstacle}");
            return None;
        }
        let (nodes_text, nics_text) = (nodes.to_string(), nics.to_string());
        let options = ["--nodes", &nodes_text, "--nics", &nics_text, "--rate", rate];
        let network = script.up("t", &options).unwrap();
        let mut lab = Lab { network, daemons: Vec::new(), folder: folder() };
        for (node, change) in changes {
            lab.network.shell(*node, change).unwrap();
        }
        let key = lab.path("key");
        assert_eq!(code(&run(&mut cep_fast(&["keygen", key.to_str().unwrap()]))), 0);
        for node in 1..=nodes {
            let daemon = lab.daemon(node, lab.inside(node), &[]);
            lab.daemons.push(daemon);
        }
        Some(lab)
    }

    /// Starts a node's daemon anew, with `more` arguments and its log in the file `logN`.
    pub(crate) fn restart(&mut self, node: u32, more: &[&str]) {
        let place = node as usize - 1;
        self.daemons[place].kill().unwrap();
        self.daemons[place].wait().unwrap();
        let mut command = self.inside(node);
        command.stderr(fs::File::create(self.path(&format!("log{node}"))).unwrap());
        self.daemons[place] = self.daemon(node, command, more);
    }

    /// Returns what a node that was started anew has logged.
    pub(crate) fn log(&self, node: u32) -> String {
        fs::read_to_string(self.path(&format!("log{node}"))).unwrap()
    }

    fn daemon(&self, node: u32, mut command: Command, more: &[&str]) -> Child {
        command
            .args(["node", "--listen", &format!("{}:7000", address(node, 0)), "--root"])
            .arg(self.folder.path())
            .args(more);
        let mut child =
            command.arg("--key-file").arg(self.path("key")).stdout(Stdio::piped()).spawn().unwrap();
        ready_address(&mut child);
        child
    }

    /// Sends a signal to a node's daemon.
    pub(crate) fn signal(&self, node: u32, signal: Signal) {
        let pid = Pid::from_raw(self.daemons[node as usize - 1].id().cast_signed());
        kill(pid, signal).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a command of the program inside a node.
    pub(crate) fn inside(&self, node: u32) -> Command {
        self.network.command(node, PROGRAM)
    }

    /// Joins the switches of the first two rails into one network.
    pub(crate) fn join_switches(&self) {
        let join = "ip link add join0 type veth peer name join1; for i in 0 1; do ip link set \
                    join$i master br$i up; done";
        self.network.shell_at_the_switch(join).unwrap();
    }

    pub(crate) fn start(&self, spec: &str) -> Child {
        self.start_with(spec, &[])
    }

    /// Starts a transfer; `more` are arguments of `run`.
    pub(crate) fn start_with(&self, spec: &str, more: &[&str]) -> Child {
        self.start_plain(spec, &[&["--overwrite"], more].concat())
    }

    fn start_plain(&self, spec: &str, more: &[&str]) -> Child {
        fs::write(self.path("spec"), spec).unwrap();
        let mut command = self.inside(0);
        command.args(["run", "--json", "--progress", "never", "--key-file"]).arg(self.path("key"));
        let command = command.args(more).arg(self.path("spec")).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a transfer into `copy` and changes the lab once its partial file exists.
    pub(crate) fn while_it_moves(&self, spec: &str, fault: impl Fn(&Lab)) -> Output {
        // The file of an earlier run would be taken for this one's.
        let _ = fs::remove_file(self.path("copy"));
        let child = self.start(spec);
        let is_partial = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.unwrap();
            let is_sized = entry.metadata().is_ok_and(|metadata| metadata.len() > 0);
            entry.file_name().to_string_lossy().starts_with(".copy") && is_sized
        };
        while !fs::read_dir(self.folder.path()).unwrap().any(is_partial) {
            std::thread::yield_now();
        }
        fault(self);
        end_of(child)
    }

    pub(crate) fn run(&self, spec: &str) -> Output {
        end_of(self.start(spec))
    }

    /// Runs a transfer that an earlier attempt may have completed: with `--overwrite` it would be
    /// written again.
    pub(crate) fn continue_run(&self, spec: &str) -> Output {
        end_of(self.start_plain(spec, &[]))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
