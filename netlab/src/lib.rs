//! Clusters of network namespaces on one machine: nodes with shaped NICs around a switch, as the
//! script `tools/netlab` lays them out, and long paths between two of them. For tests and
//! benchmarks.

mod relay;
mod slurm;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

pub use relay::{PathCounts, PathRelay, PathShape};
pub use slurm::SlurmCluster;

/// Exit status of the script where namespaces are not permitted, and of programs that need them.
pub const SKIPPED: i32 = 77;

/// The script.
#[derive(Clone, Debug)]
pub struct LabScript {
    path: PathBuf,
}

/// A lab that is removed on drop, with all processes in its nodes.
#[derive(Debug)]
pub struct NetworkLab {
    script: LabScript,
    name: String,
}

impl LabScript {
    /// Names the script by its path.
    #[must_use]
    pub fn at(path: &Path) -> LabScript {
        LabScript { path: path.to_owned() }
    }

    /// Returns the script of this repository.
    #[must_use]
    pub fn of_repository() -> LabScript {
        LabScript::at(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/netlab"))
    }

    /// Returns the reason why no lab can be created here, if any.
    ///
    /// # Errors
    /// The script cannot be run, or fails otherwise.
    pub fn obstacle(&self) -> io::Result<Option<String>> {
        let output = self.output(&["check"])?;
        if output.status.code() == Some(SKIPPED) {
            return Ok(Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        succeeded(output, "netlab check").map(|_| None)
    }

    /// Creates a lab; `options` are those of `netlab up` after the name. Its own name begins with
    /// `prefix`, lower-case letters. Labs of this prefix whose process is gone are removed first.
    ///
    /// # Errors
    /// Namespaces are not permitted, or an option is wrong.
    pub fn up(&self, prefix: &str, options: &[&str]) -> io::Result<NetworkLab> {
        // Labs of one process exist at the same time.
        static LABS: AtomicU32 = AtomicU32::new(0);
        self.remove_left_over(prefix)?;
        let serial = LABS.fetch_add(1, Ordering::Relaxed);
        let lab = NetworkLab {
            script: self.clone(),
            name: format!("{prefix}{}x{serial}", std::process::id()),
        };
        lab.lay_out(options)?;
        Ok(lab)
    }

    fn remove_left_over(&self, prefix: &str) -> io::Result<()> {
        for name in self.run(&["list"])?.lines() {
            if owner(name, prefix).is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
                // Another process may be removing it, too.
                let _ = self.run(&["down", name]);
            }
        }
        Ok(())
    }

    /// Runs the script to its successful end, and returns its output.
    fn run(&self, arguments: &[&str]) -> io::Result<String> {
        let output = self.output(arguments)?;
        let output = succeeded(output, &format!("netlab {}", arguments.join(" ")))?;
        String::from_utf8(output.stdout).map_err(io::Error::other)
    }

    fn output(&self, arguments: &[&str]) -> io::Result<Output> {
        Command::new(&self.path).args(arguments).output().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot run {}: {error}", self.path.display()))
        })
    }
}

impl NetworkLab {
    /// Lays it out once more, with other options: nodes, processes and faults of before are gone.
    ///
    /// # Errors
    /// An option is wrong.
    pub fn lay_out(&self, options: &[&str]) -> io::Result<()> {
        self.script.run(&[&["up", &self.name], options].concat()).map(drop)
    }

    /// Returns a command that runs a program inside a node.
    pub fn command(&self, node: u32, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.script.path);
        command.args(["exec", &self.name, &node.to_string()]).arg(program);
        command
    }

    /// Runs a script of the shell inside a node.
    ///
    /// # Errors
    /// The script fails.
    pub fn shell(&self, node: u32, script: &str) -> io::Result<String> {
        let output = self.command(node, "sh").args(["-ec", script]).output()?;
        String::from_utf8(succeeded(output, script)?.stdout).map_err(io::Error::other)
    }

    /// Runs a script of the shell in the namespace of the switches, which can be a router, too.
    ///
    /// # Errors
    /// The script fails.
    pub fn shell_at_the_switch(&self, script: &str) -> io::Result<()> {
        let namespace = format!("{}-sw", self.name);
        let mut shell = Command::new("ip");
        shell.args(["netns", "exec", &namespace, "sh", "-ec", script]);
        succeeded(shell.output()?, script).map(drop)
    }

    /// Gives a node's firewall rules, one to a line.
    ///
    /// # Errors
    /// A rule is wrong.
    pub fn nft(&self, node: u32, rules: &str) -> io::Result<()> {
        let mut nft = self.command(node, "nft");
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut nft = nft.spawn()?;
        // The end of its input is that of the pipe, which is closed here.
        if let Some(mut input) = nft.stdin.take() {
            input.write_all(rules.as_bytes())?;
        }
        succeeded(nft.wait_with_output()?, rules).map(drop)
    }

    /// Changes a node's NIC by `netlab fault`; `fault` are the arguments after the NIC.
    ///
    /// # Errors
    /// There is no such fault, NIC or node.
    pub fn fault(&self, node: u32, nic: usize, fault: &[&str]) -> io::Result<()> {
        let (node, nic) = (node.to_string(), format!("eth{nic}"));
        self.script.run(&[&["fault", &self.name, &node, &nic], fault].concat()).map(drop)
    }

    /// Returns the rates of a node's NICs, as tc prints them.
    ///
    /// # Errors
    /// There is no such node.
    pub fn rates(&self, node: u32) -> io::Result<Vec<String>> {
        let listed = self.shell(node, "tc qdisc show")?;
        let rate = |line: &str| Some(line.split_once(" rate ")?.1.split(' ').next()?.to_owned());
        Ok(listed.lines().filter(|line| line.contains(" tbf ")).filter_map(rate).collect())
    }

    /// Does something inside a node, in a thread of its own: a socket belongs to the namespace that
    /// it was made in.
    ///
    /// # Errors
    /// There is no such node.
    ///
    /// # Panics
    /// If `work` does.
    pub fn inside<T: Send>(&self, node: u32, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let namespace = File::open(format!("/run/netns/{}-n{node}", self.name))?;
        let enter = || -> io::Result<T> {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        };
        thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for NetworkLab {
    /// The next lab of the prefix removes what cannot be removed now.
    fn drop(&mut self) {
        let _ = self.script.run(&["down", &self.name]);
    }
}

/// Returns the address of a node's NIC.
///
/// # Panics
/// If no lab has such a node or NIC: at most 200 nodes, with 50 NICs each.
#[must_use]
pub fn address(node: u32, nic: usize) -> Ipv4Addr {
    let subnet = u8::try_from(200 + nic).expect("a subnet for each NIC");
    let host = if node == 0 { 254 } else { u8::try_from(node).expect("an address for each node") };
    Ipv4Addr::new(10, subnet, 0, host)
}

/// Returns the process that created the lab of this name, if the name has this prefix.
fn owner(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.split_once('x')?.0.parse().ok()
}

/// Makes an error of the output of a command that failed.
fn succeeded(output: Output, what: &str) -> io::Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{what} ended with {}: {}", output.status, complaint.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_names_its_process() {
        for (name, found) in
            [("bench42x0", Some(42)), ("bench42", None), ("t42x0", None), ("benchx1", None)]
        {
            assert_eq!(owner(name, "bench"), found, "{name}");
        }
    }

    #[test]
    fn addresses_are_those_of_the_script() {
        assert_eq!(address(3, 1).to_string(), "10.201.0.3");
        assert_eq!(address(0, 0).to_string(), "10.200.0.254");
    }
}
