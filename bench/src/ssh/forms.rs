//! Every form of a copy over ssh, between nodes that each have a network and a file system of their
//! own, while all cores are busy.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::login::{RemoteHome, SshFixture};
use crate::cases::book::BenchResults;
use crate::cluster::{LabCluster, host};
use crate::lab::WorkDir;
use crate::private_ssh::PrivateSsh;
use crate::process::{self, RunningProcess};

const NODES: u32 = 4;
const RATES_MBIT: [u32; 2] = [1000; 2];
const BYTES: usize = 40_000_003;
/// Busy processes.
const LOAD: usize = 4;
/// Mounts a file system of its own and starts sshd below it.
const SERVE: &str = "mount -t tmpfs -o size=1g cep \"$0\" && exec \"$@\"";

/// A form: what is typed, and where the bytes of the source must be then. `OWN` is a directory that
/// every node has for itself, `ALL` one that all see.
struct CopyForm {
    typed: &'static [&'static str],
    there: &'static [(u32, &'static str)],
}

/// A copy whose bytes are then to be found at these nodes and paths.
const fn form(typed: &'static [&'static str], there: &'static [(u32, &'static str)]) -> CopyForm {
    CopyForm { typed, there }
}

const FORMS: [CopyForm; 12] = [
    form(&["ALL/source", "node2:OWN/"], &[(2, "OWN/source")]),
    form(&["node2:OWN/source", "ALL/back"], &[(0, "ALL/back")]),
    form(&["ALL/source", "node[1,3]:OWN/one"], &[(1, "OWN/one"), (3, "OWN/one")]),
    form(&["node[1,3]:OWN/one", "node[2,4]:OWN/two"], &[(2, "OWN/two"), (4, "OWN/two")]),
    form(&["node1:OWN/one", "node4:OWN/again"], &[(4, "OWN/again")]),
    form(&["node4:OWN/again", "node4:OWN/here"], &[(4, "OWN/here")]),
    form(&["root@node3:OWN/one", "root@node1:OWN/as-root"], &[(1, "OWN/as-root")]),
    form(&["ALL/source", "node4:"], &[(4, "HOME/source")]),
    form(&["node2:source", "node1:OWN/from-home"], &[(1, "OWN/from-home")]),
    form(&["ALL/source", "@ALL/hosts:OWN/listed"], &[(1, "OWN/listed"), (2, "OWN/listed")]),
    form(&["ALL/source", "node[1-4]:ALL/shared"], &[(0, "ALL/shared")]),
    form(&["--split", "node1:OWN/one", "node[2-4]:ALL/split"], &[(0, "ALL/split")]),
];

pub(super) fn run(bench: SshFixture<'_>, book: &mut BenchResults) -> Result<()> {
    let SshFixture { lab, tools, .. } = bench;
    let cluster = LabCluster::without_daemons(lab, tools, NODES, &RATES_MBIT)?;
    let remote = bench.remote()?;
    let hosts: Vec<(String, String)> =
        (1..=NODES).map(|node| (format!("node{node}"), host(node))).collect();
    let mut ssh = remote.ssh(lab, &hosts, true)?;
    let own = lab.path("own");
    fs::create_dir(&own)?;
    for node in 1..=NODES {
        ssh.serve(lab, &format!("sshd{node}"), |sshd| {
            let mut command = cluster.command(node, "unshare");
            command.args(["-m", "sh", "-c", SERVE]).arg(&own).arg(sshd);
            command
        })?;
    }
    let mut content = vec![0; BYTES];
    random::SplitMix::new(9).fill(&mut content);
    fs::write(lab.path("source"), content)?;
    fs::write(lab.path("hosts"), "# some\nnode1\nnode2\n")?;
    let bench = FormBench { lab, cluster: &cluster, remote: &remote, ssh: &ssh };
    let _load: Vec<BusyProcess> = (0..LOAD).map(|_| BusyProcess::start()).collect::<Result<_>>()?;
    for form in FORMS {
        let typed = format!("copy {}", form.typed.join(" "));
        book.now(&typed);
        match bench.play(&form) {
            Ok(seconds) => book.must(typed, true, format!("{seconds:.2} s")),
            Err(error) => book.failed(typed, &error),
        }
    }
    let spec = "id forms\nwriter node1:7001 file://OWN/one 0 0-40000002\n\
                writer node3:7001 file://OWN/one 20000000 20000000-40000002\n\
                reader node4:7001 file://OWN/run 0 0-40000002\n";
    fs::write(lab.path("spec"), bench.placed(spec))?;
    let run =
        bench.start(&["run", "--launch", "ssh"], &[lab.path("spec").display().to_string()])?;
    match run.finish().and_then(|_| bench.compare(4, "OWN/run")) {
        Ok(()) => book.must("run SPEC --launch ssh", true, ""),
        Err(error) => book.failed("run SPEC --launch ssh", &error),
    }
    Ok(())
}

struct FormBench<'a> {
    lab: &'a WorkDir,
    cluster: &'a LabCluster<'a>,
    remote: &'a RemoteHome,
    ssh: &'a PrivateSsh,
}

impl FormBench<'_> {
    /// Types a form in node 0, and returns the seconds that the command took.
    fn play(&self, form: &CopyForm) -> Result<f64> {
        let typed: Vec<String> = form.typed.iter().map(|word| self.placed(word)).collect();
        let finished = self.start(&["copy"], &typed)?.finish()?;
        for (node, path) in form.there {
            self.compare(*node, path)?;
        }
        Ok(finished.seconds)
    }

    fn placed(&self, text: &str) -> String {
        let home = self.remote.home.display().to_string();
        let all = self.lab.path("");
        let all = all.display().to_string();
        let own = self.lab.path("own").display().to_string();
        text.replace("OWN", &own).replace("HOME", &home).replace("ALL", all.trim_end_matches('/'))
    }

    fn start(&self, command: &[&str], operands: &[String]) -> Result<RunningProcess> {
        let mut started = self.cluster.command(0, &self.remote.program);
        started.args(command).args(["--progress", "never", "--ssh"]).arg(self.ssh.client());
        started.args(operands);
        self.lab.start("typed", started)
    }

    /// Compares a file of a node with the source.
    fn compare(&self, node: u32, path: &str) -> Result<()> {
        let path = self.placed(path);
        let cat = match node {
            0 => format!("cat '{path}'"),
            _ => format!("{} node{node} cat '{path}'", self.ssh.client().display()),
        };
        let mut shell = self.cluster.command(0, "sh");
        shell.arg("-c").arg(format!("{cat} | cmp - '{}'", self.lab.path("source").display()));
        self.lab.start("cmp", shell)?.finish().with_context(|| format!("{path} of node {node}"))?;
        Ok(())
    }
}

/// A process that keeps a core busy until it is dropped.
struct BusyProcess(std::process::Child);

impl BusyProcess {
    fn start() -> Result<BusyProcess> {
        let mut shell: Command = process::command("sh");
        shell.args(["-c", "while :; do :; done"]).stdout(Stdio::null());
        Ok(BusyProcess(shell.spawn()?))
    }
}

impl Drop for BusyProcess {
    fn drop(&mut self) {
        // It has not ended by itself.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}
