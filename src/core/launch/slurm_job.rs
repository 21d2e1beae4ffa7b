//! Slurm jobs: the allocation that a process is part of, from its environment, and the command that
//! starts nodes in it.
//!
//! One step has a task on each host. Its standard input goes to all tasks alike, and every line of
//! theirs comes back with the number of its task in front.

use crate::core::error::{Code, Error, Result};
use crate::core::spec::hostlist;

/// Variables that name a job, and the Slurm that it belongs to. The step gets no others of its
/// input variables: what a script asked for its own steps would change this one, or contradict it.
const KEPT: [&str; 8] = [
    "SLURM_JOB_ID",
    "SLURM_JOBID",
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_CLUSTER_NAME",
    "SLURM_JWT",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_CPUS_PER_NODE",
];

/// A Slurm job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SlurmJob {
    id: String,
    /// The hosts as Slurm lists them.
    list: String,
    /// The hosts, in the order of the list.
    hosts: Vec<String>,
    /// CPUs of the job on the host with the fewest of them, if that is known.
    cpus_min: Option<u32>,
    /// Host of this process, if it is one of them.
    own: Option<String>,
}

impl SlurmJob {
    /// Returns the job of a process with these variables; `None` outside of jobs.
    ///
    /// # Errors
    /// `Usage` if they contradict each other.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<SlurmJob>> {
        let named = |name: &str| variable(name).filter(|value| !value.is_empty());
        let Some(id) = named("SLURM_JOB_ID").or_else(|| named("SLURM_JOBID")) else {
            return Ok(None);
        };
        let unclear = |what: String| {
            Error::new(Code::Usage, what)
                .remedy("run it in the job's script, or with salloc, as Slurm sets up both")
        };
        if !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(unclear(format!("SLURM_JOB_ID={id} is no number of a job")));
        }
        let Some(list) = named("SLURM_JOB_NODELIST").or_else(|| named("SLURM_NODELIST")) else {
            return Err(unclear(format!("job {id}: there is no SLURM_JOB_NODELIST")));
        };
        let hosts = hostlist::expand(&list).map_err(|expected| {
            unclear(format!("SLURM_JOB_NODELIST={list} is no hostlist: expected {expected}"))
        })?;
        let cpus_min = named("SLURM_JOB_CPUS_PER_NODE").and_then(|counts| fewest(&counts));
        let own = named("SLURMD_NODENAME").filter(|own| hosts.contains(own));
        Ok(Some(SlurmJob { id, list, hosts, cpus_min, own }))
    }

    /// Returns the host of this process, if it is one of them.
    pub(crate) fn own(&self) -> Option<&str> {
        self.own.as_deref()
    }

    pub(crate) fn has(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own == host)
    }

    /// Refuses a host that is none of the job's.
    ///
    /// # Errors
    /// `Usage`, with the hosts of the job.
    pub(crate) fn check(&self, host: &str) -> Result<()> {
        if self.has(host) {
            return Ok(());
        }
        let what = format!("{host}: it is no host of job {}, which has {}", self.id, self.list);
        Err(Error::new(Code::Usage, what).remedy(
            "ask Slurm for it (--nodelist), name hosts of the job, or have ssh start those \
             outside: --launch auto",
        ))
    }

    /// Returns every host of a job, which `what` asks for.
    ///
    /// # Errors
    /// `Usage` in a process outside of jobs.
    pub(crate) fn every_host(job: Option<SlurmJob>, what: &str) -> Result<Vec<String>> {
        job.map(|job| job.hosts).ok_or_else(|| SlurmJob::missing(what))
    }

    /// Returns the error of a command that needs a job, in a process outside of jobs.
    pub(crate) fn missing(what: &str) -> Error {
        Error::new(Code::Usage, format!("{what}, and this process is in none"))
            .remedy("run it in the script of sbatch or under salloc, or name the hosts")
    }

    /// Returns the words that run `command` once on each of `hosts`, which are of the job. The step
    /// shares what the job has with its other steps.
    pub(crate) fn step(&self, hosts: &[&str], command: &[String]) -> Vec<String> {
        let count = hosts.len();
        let is_all = count == self.hosts.len();
        let list = if is_all { self.list.clone() } else { hosts.join(",") };
        let mut words = vec!["srun".to_owned(), format!("--jobid={}", self.id)];
        words.extend([format!("--nodes={count}"), format!("--ntasks={count}")]);
        words.extend(["--ntasks-per-node=1".to_owned(), format!("--nodelist={list}")]);
        words.extend(self.cpus_min.map(|cpus| format!("--cpus-per-task={cpus}")));
        words.extend(STEP_OPTIONS.map(String::from));
        words.extend(command.iter().cloned());
        words
    }
}

/// A step that is beside others, is not bound to some of its CPUs, needs no memory of its own, and
/// stays when one of its tasks or nodes ends. Its output is in whole lines: `--unbuffered` would
/// cut them where a task wrote in parts.
const STEP_OPTIONS: [&str; 11] = [
    "--overlap",
    "--cpu-bind=none",
    "--mem=0",
    "--mpi=none",
    "--chdir=/",
    "--job-name=cep-fast",
    "--label",
    "--input=all",
    "--no-kill",
    "--kill-on-bad-exit=0",
    "--wait=0",
];

/// Returns true for a variable that the step is not to have.
pub(crate) fn is_withheld(name: &str) -> bool {
    // A session of ssh may have submitted the job; the tasks were not reached by it.
    let is_input = name.starts_with("SLURM_") || name.starts_with("SRUN_");
    (is_input && !KEPT.contains(&name)) || name == "SSH_CONNECTION"
}

/// Returns the smallest of counts such as `2(x3),1`.
fn fewest(counts: &str) -> Option<u32> {
    let count = |part: &str| part.split('(').next()?.parse().ok();
    counts.split(',').map(count).collect::<Option<Vec<u32>>>()?.into_iter().min()
}

/// A line of a step, and the number of its task if it comes from one.
pub(crate) fn labelled(line: &str) -> (Option<usize>, &str) {
    let trimmed = line.trim_start_matches(' ');
    let Some((number, text)) = trimmed.split_once(':') else { return (None, line) };
    match number.parse() {
        // An empty line of a task has no space behind the colon.
        Ok(task) if number.len() <= 6 => (Some(task), text.strip_prefix(' ').unwrap_or(text)),
        _ => (None, line),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn job(variables: &[(&str, &str)]) -> Result<Option<SlurmJob>> {
        SlurmJob::of(|name| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const JOB: [(&str, &str); 3] = [
        ("SLURM_JOB_ID", "7"),
        ("SLURM_JOB_NODELIST", "node[1-3,5]"),
        ("SLURM_JOB_CPUS_PER_NODE", "4(x3),2"),
    ];

    #[test]
    fn a_job_is_known_by_its_variables() {
        let found = job(&JOB).unwrap().unwrap();
        assert_eq!(found.hosts, ["node1", "node2", "node3", "node5"]);
        assert_eq!((found.cpus_min, found.own()), (Some(2), None));
        for (name, own) in [("node3", Some("node3")), ("login", None)] {
            let found = job(&[&JOB[..], &[("SLURMD_NODENAME", name)]].concat()).unwrap().unwrap();
            assert_eq!(found.own(), own);
        }
        assert_eq!(job(&[]).unwrap(), None);
        assert_eq!(job(&[("SLURM_JOB_ID", "")]).unwrap(), None);
        for variables in [
            &[("SLURM_JOB_ID", "7")][..],
            &[("SLURM_JOB_ID", "7x"), ("SLURM_JOB_NODELIST", "a")],
            &[("SLURM_JOB_ID", "7"), ("SLURM_JOB_NODELIST", "a[3-1]")],
        ] {
            assert_eq!(job(variables).unwrap_err().code, Code::Usage, "{variables:?}");
        }
    }

    #[test]
    fn hosts_outside_are_refused_by_name() {
        let found = job(&JOB).unwrap().unwrap();
        found.check("node5").unwrap();
        let error = found.check("node4").unwrap_err();
        assert!(error.code == Code::Usage && error.message.starts_with("node4: "), "{error}");
        assert!(error.message.contains("node[1-3,5]"), "{error}");
    }

    #[test]
    fn a_step_has_a_task_on_each_host() {
        let found = job(&JOB).unwrap().unwrap();
        let words = found.step(&["node2", "node5"], &["true".into()]);
        for word in ["--jobid=7", "--ntasks=2", "--nodelist=node2,node5", "--cpus-per-task=2"] {
            assert!(words.iter().any(|own| own == word), "{word}: {words:?}");
        }
        assert_eq!(words.last().unwrap(), "true");
        let hosts: Vec<&str> = found.hosts.iter().map(String::as_str).collect();
        assert!(found.step(&hosts, &[]).contains(&"--nodelist=node[1-3,5]".to_owned()));
    }

    /// A script's `--ntasks-per-node` or `--mem-per-cpu` would be this step's, too.
    #[test]
    fn what_a_script_asks_for_its_own_steps_is_not_for_this_one() {
        for name in ["SLURM_MEM_PER_CPU", "SLURM_NTASKS", "SRUN_CPUS_PER_TASK", "SSH_CONNECTION"] {
            assert!(is_withheld(name), "{name}");
        }
        for name in ["SLURM_JOB_ID", "SLURM_CONF", "PATH", "SLURMD_NODENAME"] {
            assert!(!is_withheld(name), "{name}");
        }
    }

    #[test]
    fn lines_of_tasks_are_told_from_those_of_slurm() {
        for (line, expected) in [
            ("0: ready 10.0.0.1:7", (Some(0), "ready 10.0.0.1:7")),
            ("  12: a: b", (Some(12), "a: b")),
            ("3:", (Some(3), "")),
            ("srun: error: node2: task 1: Exited", (None, "srun: error: node2: task 1: Exited")),
            ("slurmstepd: error: x", (None, "slurmstepd: error: x")),
            ("12345678: x", (None, "12345678: x")),
            ("", (None, "")),
        ] {
            assert_eq!(labelled(line), expected, "{line}");
        }
    }
}
