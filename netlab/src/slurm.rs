//! Slurm in a lab: a controller in node 0 and a daemon in every other node, which is a host of that
//! name with a file system of its own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{NetworkLab, address, succeeded};

/// Programs that it consists of.
const PROGRAMS: [&str; 4] = ["munged", "slurmctld", "slurmd", "srun"];
/// Time for a daemon to come up.
const UP_WITHIN: Duration = Duration::from_secs(30);
/// Interval of looks at what has no event to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// `ip netns exec` mounts /sys anew: Slurm's daemons need the groups of processes below it.
const SERVE: &str = "mount --rbind /sys/fs/cgroup \"$0/groups\" && hostname \"$1\" && shift && \
                     exec \"$@\"";
/// A node's own file system covers the folder of that name.
const SERVE_INSIDE: &str = "mount --rbind \"$0/groups\" /sys/fs/cgroup && mount -t tmpfs -o \
                            size=3g own \"$0/own\" && exec \"$@\"";

/// Slurm's daemons in a lab. They end on drop.
#[derive(Debug)]
pub struct SlurmCluster {
    folder: PathBuf,
    /// Search path of its commands and jobs.
    path: OsString,
    daemons: Vec<Child>,
}

impl SlurmCluster {
    /// Returns the first program that is missing here, if any.
    #[must_use]
    pub fn missing_program() -> Option<&'static str> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        folders.extend(["/usr/sbin".into(), "/sbin".into()]);
        PROGRAMS.into_iter().find(|name| !folders.iter().any(|folder| folder.join(name).is_file()))
    }

    /// Starts Slurm for the nodes 1 to `nodes` of a lab, which are called node1 and so on, and
    /// keeps its state in `folder`. The folder `programs` comes first in the search path of its
    /// commands and jobs; `settings` are further lines of its configuration.
    ///
    /// # Errors
    /// A program is missing, or did not come up.
    pub fn start(
        network: &NetworkLab,
        nodes: u32,
        folder: &Path,
        programs: &Path,
        settings: &str,
    ) -> io::Result<SlurmCluster> {
        // What an earlier cluster has left there knows other jobs and nodes.
        let _ = fs::remove_dir_all(folder);
        for name in ["state", "groups", "own", "munge"] {
            fs::create_dir_all(folder.join(name))?;
        }
        // Munge refuses folders that others may write to, and keys that they may read.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let key = folder.join("munge.key");
        let mut bytes = [0; 128];
        random::SplitMix::new(u64::from(std::process::id())).fill(&mut bytes);
        fs::write(&key, bytes)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        fs::write(folder.join("slurm.conf"), configuration(nodes, folder, settings))?;
        let mut path = programs.as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut cluster = SlurmCluster { folder: folder.to_owned(), path, daemons: Vec::new() };
        cluster.start_munge()?;
        let mut controller = network.command(0, "unshare");
        controller.args(["-u", "sh", "-c", "hostname ctl && exec slurmctld -D -f \"$0\""]);
        controller.arg(cluster.configuration());
        cluster.spawn("slurmctld", controller)?;
        for node in 1..=nodes {
            cluster.start_node(network, node)?;
        }
        cluster.wait_until_up(network, nodes)?;
        Ok(cluster)
    }

    /// Returns a command inside a node that knows this Slurm.
    pub fn command(&self, network: &NetworkLab, node: u32, program: impl AsRef<OsStr>) -> Command {
        let mut command = network.command(node, program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("SLURM")) {
                command.env_remove(name);
            }
        }
        command.env("SLURM_CONF", self.configuration()).env("PATH", &self.path);
        command
    }

    /// Returns the folder that is a file system of its own on every node.
    #[must_use]
    pub fn own(&self) -> PathBuf {
        self.folder.join("own")
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("slurm.conf")
    }

    fn start_munge(&mut self) -> io::Result<()> {
        let folder = self.folder.join("munge");
        let mut munge = Command::new("munged");
        munge.args(["--foreground", "--force", "--key-file"]).arg(self.folder.join("munge.key"));
        for name in ["socket", "pid-file", "log-file", "seed-file"] {
            munge.arg(format!("--{name}={}", folder.join(name).display()));
        }
        let place = self.daemons.len();
        self.spawn("munged", munge)?;
        wait_until("munged", || {
            if let Some(status) = self.daemons[place].try_wait()? {
                return Err(io::Error::other(format!("munged ended with {status}")));
            }
            Ok(folder.join("socket").exists())
        })
    }

    fn start_node(&mut self, network: &NetworkLab, node: u32) -> io::Result<()> {
        let name = format!("node{node}");
        fs::create_dir_all(self.folder.join("spool").join(&name))?;
        let inside = network.command(node, "sh");
        let mut daemon = Command::new("unshare");
        daemon.args(["-m", "-u", "sh", "-c", SERVE]).arg(&self.folder).arg(&name);
        daemon.arg(inside.get_program()).args(inside.get_args());
        daemon.args(["-c", SERVE_INSIDE]).arg(&self.folder);
        daemon.args(["slurmd", "-D", "-N", &name, "-f"]).arg(self.configuration());
        self.spawn(&name, daemon)
    }

    fn spawn(&mut self, name: &str, mut command: Command) -> io::Result<()> {
        let log = fs::File::create(self.folder.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.daemons.push(command.spawn()?);
        Ok(())
    }

    fn wait_until_up(&self, network: &NetworkLab, nodes: u32) -> io::Result<()> {
        wait_until("Slurm", || {
            let mut look = self.command(network, 0, "sinfo");
            let listed = look.args(["-h", "-N", "-o", "%t"]).output()?;
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            Ok(listed.lines().filter(|state| *state == "idle").count() == nodes as usize)
        })
        .map_err(|error| {
            let log = fs::read_to_string(self.folder.join("node1.log")).unwrap_or_default();
            io::Error::other(format!("{error}: {log}"))
        })
    }

    /// Submits a script with arguments, and returns the number of its job.
    ///
    /// # Errors
    /// Slurm refuses it.
    pub fn submit(
        &self,
        network: &NetworkLab,
        options: &[&str],
        script: &Path,
        arguments: &[&str],
    ) -> io::Result<u32> {
        let mut submit = self.command(network, 0, "sbatch");
        let output = self.folder.join("job.%j");
        submit.args(["--parsable", "--open-mode=append", "--output"]).arg(output);
        submit.args(options).arg(script).args(arguments);
        let said = text(submit.output()?, "sbatch")?;
        said.trim().parse().map_err(|_| io::Error::other(format!("sbatch said {said:?}")))
    }

    /// Waits for a job's end, and returns its state and the status of its script.
    ///
    /// # Errors
    /// It takes longer than `within`.
    pub fn end_of(
        &self,
        network: &NetworkLab,
        job: u32,
        within: Duration,
    ) -> io::Result<(String, String)> {
        let mut last = String::new();
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            let mut show = self.command(network, 0, "scontrol");
            last = text(show.args(["show", "job", &job.to_string()]).output()?, "scontrol")?;
            let field = |name: &str| {
                let found = last.split_whitespace().find_map(|word| word.strip_prefix(name));
                found.unwrap_or_default().to_owned()
            };
            let state = field("JobState=");
            if !["PENDING", "RUNNING", "COMPLETING", "CONFIGURING"].contains(&state.as_str()) {
                return Ok((state, field("ExitCode=")));
            }
            thread::sleep(LOOK_EVERY);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("job {job} has not ended: {last}")))
    }

    /// Returns what a job has printed.
    #[must_use]
    pub fn output(&self, job: u32) -> String {
        fs::read_to_string(self.folder.join(format!("job.{job}"))).unwrap_or_default()
    }
}

impl Drop for SlurmCluster {
    fn drop(&mut self) {
        // What still runs in the nodes ends with the lab.
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
        }
        for daemon in &mut self.daemons {
            let _ = daemon.wait();
        }
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let deadline = Instant::now() + UP_WITHIN;
    while !done()? {
        if Instant::now() > deadline {
            let what = format!("{what} did not come up within {} s", UP_WITHIN.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn text(output: Output, what: &str) -> io::Result<String> {
    String::from_utf8(succeeded(output, what)?.stdout).map_err(io::Error::other)
}

fn configuration(nodes: u32, folder: &Path, settings: &str) -> String {
    let folder = folder.display();
    let mut text = format!(
        "ClusterName=lab\nSlurmctldHost=ctl({controller})\nSlurmUser=root\nSlurmdUser=root\n\
         AuthType=auth/munge\nAuthInfo=socket={folder}/munge/socket\nCredType=cred/munge\n\
         MpiDefault=none\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\n\
         SwitchType=switch/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_Core\n\
         ReturnToService=2\nSlurmctldPort=16817\nSlurmdPort=16818\n\
         StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool/%n\n\
         SlurmctldPidFile={folder}/slurmctld.pid\nSlurmdPidFile={folder}/slurmd.%n.pid\n\
         KillWait=3\nJobAcctGatherType=jobacct_gather/none\n\
         AccountingStorageType=accounting_storage/none\nJobCompType=jobcomp/none\n\
         SchedulerParameters=sched_interval=1\n{settings}\n",
        controller = address(0, 0)
    );
    for node in 1..=nodes {
        text += &format!(
            "NodeName=node{node} NodeHostname=node{node} NodeAddr={} CPUs=2 RealMemory=1000\n",
            address(node, 0)
        );
    }
    text + &format!(
        "PartitionName=lab Nodes=node[1-{nodes}] Default=YES MaxTime=INFINITE State=UP \
         OverSubscribe=FORCE:4\n"
    )
}
