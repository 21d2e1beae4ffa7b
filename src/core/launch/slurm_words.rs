//! Words of srun: what it says when a step cannot start or ends, as errors that name the host and a
//! remedy.

use super::ssh_words::{FailureKind, kind, quoted};
use crate::core::error::{Code, Error};
use crate::core::spec::hostlist;

const OVER: &str = "the job has ended, or is about to: submit it again, which resumes";
const STEPS: &str = "let steps of the job end, or ask for a higher limit (MaxStepCount)";
const BUSY: &str = "let other steps of the job end, or start them with srun --overlap, too";
const NODE: &str = "look at it with sinfo -R, and leave it out: sbatch --exclude=HOST";
const DAEMON: &str = "look whether slurmctld answers (scontrol ping), and try again";
const ALLOCATION: &str = "ask for as many hosts and CPUs as are named: sbatch --nodes, \
                          --cpus-per-task";
const RIGHTS: &str = "run it as the user of the job";
const SHELL: &str = "look whether /bin/sh runs there: srun /bin/sh -c true";
const VERSION: &str = "update Slurm to 20.11 or later, or have ssh start the nodes: --launch ssh";
const UNCLEAR: &str = "look whether srun --overlap true works in this job";

/// The first that fits a line is meant: what names a cause comes before what only follows from it.
const KINDS: [FailureKind; 25] = [
    kind(&["Step limit reached"], Code::Unreachable, "the job has no room for a step", STEPS),
    kind(&["Expired or invalid job"], Code::Unreachable, "the job is over", OVER),
    kind(&["Invalid job id"], Code::Unreachable, "the job is over", OVER),
    kind(&["Job is not running"], Code::Unreachable, "the job does not run", OVER),
    kind(&["Job has already finished"], Code::Unreachable, "the job is over", OVER),
    kind(&["Job/step already completing"], Code::Unreachable, "the job is over", OVER),
    kind(&["CANCELLED AT"], Code::Unreachable, "the step was cancelled", OVER),
    kind(&["DUE TO TIME LIMIT"], Code::Unreachable, "the time of the job is over", OVER),
    kind(&["unrecognized option"], Code::Usage, "this srun is too old", VERSION),
    kind(&["Access/permission denied"], Code::Refused, "Slurm refused the step", RIGHTS),
    kind(&["Invalid user id"], Code::Refused, "Slurm refused the step", RIGHTS),
    kind(&["Invalid authentication"], Code::Refused, "Slurm refused the step", RIGHTS),
    kind(&["DUE TO NODE FAILURE"], Code::Unreachable, "a host of the job failed", NODE),
    kind(&["Node failure"], Code::Unreachable, "a host of the job failed", NODE),
    kind(&["Requested node configuration is not"], Code::Usage, "the job is too small", ALLOCATION),
    kind(&["More processors requested"], Code::Usage, "the job is too small", ALLOCATION),
    kind(&["Requested node is down"], Code::Unreachable, "a host of the job is down", NODE),
    kind(&["Required node not available"], Code::Unreachable, "a host is down or drained", NODE),
    kind(&["Invalid node name"], Code::Usage, "Slurm does not know a host", NODE),
    kind(&["not in this job"], Code::Usage, "a host is not in the job", ALLOCATION),
    kind(&["Requested nodes are busy"], Code::Unreachable, "other steps have the hosts", BUSY),
    kind(&["Unable to contact slurm"], Code::Unreachable, "Slurm does not answer", DAEMON),
    kind(&["Communication connection"], Code::Unreachable, "a host does not answer Slurm", NODE),
    kind(&["Socket timed out"], Code::Unreachable, "Slurm does not answer", DAEMON),
    kind(&["execve"], Code::Unreachable, "the command could not be run", SHELL),
];

/// Returns the error of a step that did not come to run all its nodes, from the lines that are
/// Slurm's own. `hosts` is what the step was to run on.
pub(crate) fn slurm_failure(hosts: &str, status: Option<i32>, words: &[String]) -> Error {
    let found = KINDS
        .iter()
        .find_map(|kind| words.iter().find(|line| kind.fits(line)).map(|line| (kind, line)));
    let (code, what, line, remedy) = match found {
        Some((kind, line)) => (kind.code, kind.what.to_owned(), Some(line), kind.remedy),
        None => {
            let what = match status {
                Some(status) => format!("srun ended with status {status}"),
                None => "srun was killed".to_owned(),
            };
            let is_error = |line: &&String| line.contains("error");
            let line = words.iter().find(is_error).or(words.last());
            (Code::Unreachable, what, line, UNCLEAR)
        }
    };
    let host = line.and_then(|line| named(line)).map_or(hosts, |(host, _)| host);
    let message = match line {
        Some(line) => format!("{host}: {what}: {}", quoted(line)),
        None => format!("{host}: {what}, and nothing was said"),
    };
    Error::new(code, message).remedy(remedy.replace("HOST", host))
}

/// Returns the hosts of the tasks that a line of srun says have ended with an error.
pub(crate) fn ended(line: &str) -> Option<Vec<String>> {
    let (host, rest) = named(line)?;
    let is_end = [": Exited with exit code", ": Killed", ": Terminated", ": Segmentation"];
    let is_task = rest.starts_with("task") && is_end.iter().any(|end| rest.contains(end));
    if is_task { hostlist::expand(host).ok() } else { None }
}

/// Returns the hosts that a line such as `srun: error: HOSTS: …` names, and what follows.
fn named(line: &str) -> Option<(&str, &str)> {
    let (host, rest) = line.strip_prefix("srun: error: ")?.split_once(": ")?;
    let is_hosts = rest.starts_with("task") && !host.contains(' ');
    is_hosts.then_some((host, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(words: &[&str]) -> Error {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        slurm_failure("node[1-4]", Some(1), &words)
    }

    #[test]
    fn every_failure_of_srun_has_its_code_and_its_remedy() {
        let create = "srun: error: Unable to create step for job 7: ";
        for (reason, code, remedy) in [
            ("Step limit reached for this job", Code::Unreachable, "MaxStepCount"),
            ("Job/step already completing or completed", Code::Unreachable, "submit it again"),
            ("Invalid job id specified", Code::Unreachable, "submit it again"),
            ("unrecognized option '--overlap'", Code::Usage, "20.11"),
            ("Access/permission denied", Code::Refused, "user of the job"),
            ("Requested node configuration is not available", Code::Usage, "--nodes"),
            (
                "Required node not available (down, drained or reserved)",
                Code::Unreachable,
                "sinfo -R",
            ),
            (
                "Unable to contact slurm controller (connect failure)",
                Code::Unreachable,
                "scontrol ping",
            ),
            ("Some new reason", Code::Unreachable, "srun --overlap true"),
        ] {
            let error = failure(&["srun: info", &format!("{create}{reason}")]);
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.starts_with("node[1-4]: "), "{error}");
            assert!(error.message.contains(reason), "{error}");
            assert!(error.remedy.as_deref().is_some_and(|said| said.contains(remedy)), "{error}");
        }
        assert!(failure(&[]).message.contains("nothing was said"));
    }

    #[test]
    fn tasks_that_end_are_named_by_their_hosts() {
        for (line, hosts) in [
            ("srun: error: node2: task 1: Exited with exit code 5", Some(vec!["node2"])),
            ("srun: error: node[1,3]: tasks 0,2: Killed", Some(vec!["node1", "node3"])),
            ("srun: error: node1: tasks 0-1: Terminated", Some(vec!["node1"])),
            ("srun: error: Unable to create step for job 7: Killed", None),
            ("node2: task 1: Exited with exit code 5", None),
        ] {
            let hosts = hosts.map(|hosts| hosts.into_iter().map(String::from).collect());
            assert_eq!(ended(line), hosts, "{line}");
        }
    }
}
