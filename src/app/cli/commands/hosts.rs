//! Hosts of a command on which nodes are started.

use std::collections::BTreeMap;

use super::run::own_program;
use crate::app::cli::args::DeployMode;
use crate::app::cli::host_operand::HostOperand;
use crate::app::cli::launch_args::StarterArgs;
use crate::app::cli::operand::EVERY_HOST;
use crate::app::transfer::Settings;
use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchMethod;
use crate::core::launch::slurm_job::SlurmJob;
use crate::core::spec::NodeAddress;
use crate::io::launch::NodeToStart;

/// Root of nodes that move no files: a directory that exists everywhere, with nothing secret or
/// writable in it.
const ROOT_WITHOUT_FILES: &str = "/sys/class/net";

/// Returns the settings of nodes that are started and move no files.
pub(super) fn settings_without_files(launch: LaunchMethod, starter: &StarterArgs) -> Settings {
    Settings {
        launch,
        ssh: starter.ssh.clone(),
        deploy: starter.deploy == DeployMode::Auto,
        ports: starter.ports,
        program: own_program(),
        root: ROOT_WITHOUT_FILES.into(),
        ..Settings::default()
    }
}

/// Returns the nodes of the hosts that operands name, each once, in the order of their mention;
/// without operands, of all hosts of the Slurm job that `current_job` finds.
///
/// # Errors
/// `Usage` for hosts that the launch method cannot have, or that are named for two users, and where
/// there is no job.
pub(super) fn nodes_of(
    operands: &[HostOperand],
    settings: &Settings,
    current_job: &dyn Fn() -> Result<Option<SlurmJob>>,
) -> Result<Vec<NodeToStart>> {
    let launch = &settings.launch;
    if *launch == LaunchMethod::None {
        let first = operands.first().map_or_else(String::new, ToString::to_string);
        let what = format!("{first}: nothing says how a node is started there");
        return Err(Error::new(Code::Usage, what).remedy("add --launch ssh"));
    }
    let job = settings.job()?;
    let of_job = || -> Result<Vec<String>> {
        SlurmJob::every_host(current_job()?, &format!("{EVERY_HOST} is every host of a Slurm job"))
    };
    let every = [HostOperand { user: None, hosts: vec![EVERY_HOST.into()], hosts_file: None }];
    let operands = if operands.is_empty() { &every } else { operands };
    let mut users: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut nodes = Vec::new();
    for operand in operands {
        if operand.user.is_some() && !launch.logs_in() {
            let what = format!("{operand}: --launch {launch} logs in nowhere");
            return Err(Error::new(Code::Usage, what)
                .remedy("leave the user away, or have ssh start the nodes: --launch ssh"));
        }
        let hosts = match &operand.hosts[..] {
            [only] if only == EVERY_HOST => of_job()?,
            _ => operand.all_hosts()?,
        };
        for host in hosts {
            match users.get(&host) {
                Some(user) if *user == operand.user => continue,
                Some(_) => {
                    let what = format!("{host} is named for two users");
                    return Err(Error::new(Code::Usage, what).remedy("name each host once"));
                }
                None => {}
            }
            let address = NodeAddress { host: host.clone(), port: 0 };
            let place = settings.place(&address, operand.user.as_deref(), job.as_ref());
            users.insert(host, operand.user.clone());
            nodes.push(NodeToStart { address, place });
        }
    }
    Ok(nodes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn named(texts: &[&str], launch: LaunchMethod) -> Result<Vec<String>> {
        let operands: Vec<HostOperand> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let job = || {
            SlurmJob::of(|name| match name {
                "SLURM_JOB_ID" => Some("7".into()),
                "SLURM_JOB_NODELIST" => Some("j[1-2]".into()),
                _ => None,
            })
        };
        let nodes = nodes_of(&operands, &Settings { launch, ..Settings::default() }, &job)?;
        Ok(nodes.iter().map(|node| format!("{} {:?}", node.address.host, node.place)).collect())
    }

    #[test]
    fn each_host_is_one_node() {
        let there = |host: &str| format!("{host} Host {{ user: None }}");
        assert_eq!(
            named(&["n[1-2]", "n2,a"], LaunchMethod::Ssh).unwrap(),
            [there("n1"), there("n2"), there("a")]
        );
        assert_eq!(named(&["*"], LaunchMethod::Ssh).unwrap(), [there("j1"), there("j2")]);
        assert_eq!(named(&[], LaunchMethod::Slurm).unwrap(), ["j1 Job", "j2 Job"]);
        assert_eq!(named(&["a"], LaunchMethod::Local).unwrap(), ["a Loopback"]);
        assert_eq!(
            named(&["localhost", "me@a"], LaunchMethod::Auto).unwrap(),
            ["localhost Here", "a Host { user: Some(\"me\") }"]
        );
    }

    #[test]
    fn what_cannot_be_started_is_refused() {
        for (texts, launch, said) in [
            (&["a"][..], LaunchMethod::None, "a: nothing says"),
            (&["me@a"], LaunchMethod::Local, "me@a: --launch local logs in nowhere"),
            (&["a", "me@a"], LaunchMethod::Ssh, "a is named for two users"),
            (&["@/nowhere/f"], LaunchMethod::Ssh, "/nowhere/f: cannot be read"),
        ] {
            let error = named(texts, launch).unwrap_err();
            assert!(error.code == Code::Usage && error.message.starts_with(said), "{error}");
            assert!(error.remedy.is_some());
        }
    }
}
