//! Operands as they mean files: checked as far as that goes before anybody is asked.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;

use super::files::{CopyFile, CopyOperand, group};
use crate::app::cli::Operand;
use crate::app::cli::args::CopyArgs;
use crate::app::cli::host_operand::hosts_in_file;
use crate::app::cli::operand::EVERY_HOST;
use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchMethod;
use crate::core::launch::slurm_job::SlurmJob;
use crate::core::spec::NodeAddress;
use crate::io::launch::current_job;
use crate::io::store::check_kind;

/// Limit on the files of one command: all rows of a node are in one message.
const FILES_MAX: usize = crate::core::spec::NODE_ROWS_MAX;
/// Port of daemons, if none is given.
const PORT: u16 = 5000;

/// Files to copy, where to, and the nodes that take part.
pub(super) struct CopyRequest {
    pub(super) files: Vec<CopyFile>,
    pub(super) destination: CopyOperand,
    /// In the order of their first mention.
    pub(super) nodes: Vec<CopyNode>,
    /// Start of the nodes of other hosts.
    pub(super) launch: LaunchMethod,
}

/// A node of a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CopyNode {
    /// Name of its host, or of a node for local paths.
    pub(super) name: String,
    pub(super) address: NodeAddress,
    /// User to log in as.
    pub(super) user: Option<String>,
    pub(super) is_local: bool,
}

impl CopyRequest {
    /// Reads the operands of a command.
    ///
    /// # Errors
    /// `Usage` for what cannot be meant, with the remedy; `Data` for local paths that lead to no
    /// file, and for a file of hosts that cannot be read.
    pub(super) fn read(args: &CopyArgs) -> Result<CopyRequest> {
        let operands = args.operands.iter().map(with_hosts).collect::<Result<Vec<_>>>()?;
        let job = current_job();
        let operands = of_job(operands, || job.clone())?;
        operands.iter().try_for_each(check_remote)?;
        let root = args.transfer.launch.root.clone().unwrap_or_else(|| "/".into());
        let launch = args.transfer.launch.launch.clone().unwrap_or(LaunchMethod::Auto);
        let operands = match launch {
            LaunchMethod::Auto | LaunchMethod::Slurm => {
                let own = job.as_ref().ok().and_then(|job| job.as_ref()?.own());
                on_own_host(operands, own, &root)?
            }
            _ => operands,
        };
        let (source_node, target_node) = node_names(&operands);
        let (last, first) = operands.split_last().expect("two operands are the least");
        let sources = first.iter().map(|source| {
            let operand = operand_of(source, &source_node, &root)?;
            let path = source_path(&operand, &root)?;
            Ok(CopyOperand { path, ..operand })
        });
        let sources = sources.collect::<Result<Vec<CopyOperand>>>()?;
        let destination = operand_of(last, &target_node, &root)?;
        let nodes = nodes(sources.iter().chain([&destination]), port_of(args, &launch)?)?;
        check_launch(&nodes, &launch, args.transfer.keys.key_file.is_some())?;
        let files = group(sources)?;
        if files.len() > FILES_MAX {
            let what = format!(
                "too many files: {}; the limit for one command is {FILES_MAX}",
                files.len()
            );
            return Err(Error::new(Code::Usage, what)
                .remedy("copy them in several commands, or pack them first"));
        }
        if args.split && destination.hosts.len() < 2 {
            let what = format!("--split: {} has one host", destination.typed);
            return Err(Error::new(Code::Usage, what)
                .remedy("name the hosts that write together: 'node[01-08]:/scratch/'"));
        }
        Ok(CopyRequest { files, destination, nodes, launch })
    }

    /// Returns true if all paths are of this machine.
    pub(super) fn is_local(&self) -> bool {
        self.nodes.iter().all(|node| node.is_local)
    }
}

/// Returns the port of the nodes of hosts: that of daemons, or any for those that are started.
fn port_of(args: &CopyArgs, launch: &LaunchMethod) -> Result<u16> {
    match (launch, args.port) {
        (LaunchMethod::None, port) => Ok(port.unwrap_or(PORT)),
        (_, None) => Ok(0),
        (_, Some(_)) => Err(Error::new(Code::Usage, "--port is that of daemons that run already")
            .remedy("use it with --launch none; nodes that are started take any free port")),
    }
}

/// Refuses hosts that a launch method cannot have.
fn check_launch(nodes: &[CopyNode], launch: &LaunchMethod, has_key: bool) -> Result<()> {
    let of_user = nodes.iter().find_map(|node| Some((node, node.user.as_ref()?)));
    if let (Some((node, user)), false) = (of_user, launch.logs_in()) {
        let what = format!("{user}@{}: --launch {launch} logs in nowhere", node.name);
        return Err(Error::new(Code::Usage, what)
            .remedy("leave the user away, or have ssh start the nodes: --launch auto"));
    }
    let remote = nodes.iter().find(|node| !node.is_local);
    if let (Some(node), LaunchMethod::None, false) = (remote, launch, has_key) {
        let what = format!("{}: daemons are asked with their key, and there is none", node.address);
        return Err(Error::new(Code::Usage, what).remedy(
            "--key-file FILE, as the daemons have it; or have ssh start the nodes: --launch auto",
        ));
    }
    Ok(())
}

/// Returns an operand with its hosts, where they are listed in a file.
fn with_hosts(operand: &Operand) -> Result<Operand> {
    let Some(file) = &operand.hosts_file else { return Ok(operand.clone()) };
    let hosts = hosts_in_file(file, "@FILE:path")?;
    Ok(Operand { hosts, ..operand.clone() })
}

/// Returns operands in which every host of the job stands for itself.
fn of_job(
    mut operands: Vec<Operand>,
    job: impl FnOnce() -> Result<Option<SlurmJob>>,
) -> Result<Vec<Operand>> {
    let means_all = |operand: &Operand| operand.hosts.iter().any(|host| host == EVERY_HOST);
    let Some(typed) = operands.iter().find(|operand| means_all(operand)) else {
        return Ok(operands);
    };
    let what = format!("{typed}: {EVERY_HOST} is every host of a Slurm job");
    let hosts = SlurmJob::every_host(job()?, &what)?;
    for operand in operands.iter_mut().filter(|operand| means_all(operand)) {
        operand.hosts.clone_from(&hosts);
    }
    Ok(operands)
}

/// Returns operands in which local paths are those of this very host, where another operand names
/// it as a host of the job. Two nodes of one host would share its NICs, and the plan would not
/// know.
fn on_own_host(mut operands: Vec<Operand>, own: Option<&str>, root: &Path) -> Result<Vec<Operand>> {
    let names = |operand: &Operand, own: &str| {
        operand.user.is_none() && operand.hosts.iter().any(|host| host == own)
    };
    let Some(own) = own.filter(|own| operands.iter().any(|operand| names(operand, own))) else {
        return Ok(operands);
    };
    for operand in operands.iter_mut().filter(|operand| operand.is_local()) {
        operand.path = absolute(operand, root)?;
        operand.hosts = vec![own.to_owned()];
    }
    Ok(operands)
}

/// Refuses an operand with a host that is likely meant as something else.
fn check_remote(operand: &Operand) -> Result<()> {
    if operand.is_local() {
        return Ok(());
    }
    let typed = operand.to_string();
    if Path::new(&typed).exists() {
        let what = format!("{typed} is a file here, and a path of another host as well");
        return Err(Error::new(Code::Usage, what)
            .remedy(format!("write ./{typed} for the file of that name here")));
    }
    let is_drive = matches!(&operand.hosts[..], [host] if host.len() == 1);
    if is_drive && operand.path.as_os_str().as_bytes().starts_with(b"\\") {
        let what = format!("{typed} looks like a path of Windows, whose drives are no hosts");
        return Err(Error::new(Code::Usage, what).remedy(format!(
            "name the path by which this system has it, such as /mnt/{}/…",
            operand.hosts[0].to_lowercase()
        )));
    }
    Ok(())
}

/// Returns the names for the nodes of local sources and of a local destination in reports. They
/// differ from all hosts of operands.
fn node_names(operands: &[Operand]) -> (String, String) {
    let is_host =
        |name: &str| operands.iter().any(|operand| operand.hosts.iter().any(|host| host == name));
    let free = |name: &str| {
        let mut name = name.to_owned();
        while is_host(&name) {
            name.insert_str(0, "local-");
        }
        name
    };
    (free("source"), free("target"))
}

fn operand_of(operand: &Operand, local_node: &str, root: &Path) -> Result<CopyOperand> {
    let mut hosts: Vec<String> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    hosts.extend(operand.hosts.iter().filter(|host| seen.insert(*host)).cloned());
    if operand.is_local() {
        hosts.push(local_node.to_owned());
    }
    Ok(CopyOperand {
        hosts,
        path: if operand.is_local() { absolute(operand, root)? } else { operand.path.clone() },
        typed: operand.to_string(),
        user: operand.user.clone(),
        is_local: operand.is_local(),
    })
}

/// Returns a local path, from the root of its node.
fn absolute(operand: &Operand, root: &Path) -> Result<PathBuf> {
    if operand.path.is_absolute() {
        return Ok(operand.path.clone());
    }
    if root != Path::new("/") {
        let what = format!(
            "{operand}: the path must start with a slash: it names a place below the node's root"
        );
        return Err(Error::new(Code::Usage, what));
    }
    let here = std::env::current_dir();
    let here = here.map_err(|error| {
        Error::new(Code::Usage, format!("there is no current directory: {error}"))
    })?;
    // Joined as text: `x/.` is a directory, and stays one.
    Ok(here.join(&operand.path))
}

/// Returns the path of a source. A local one is that of the file that it leads to: `/dev/stdin`
/// leads elsewhere in a node.
fn source_path(operand: &CopyOperand, root: &Path) -> Result<PathBuf> {
    let path = &operand.path;
    if !operand.is_local || root != Path::new("/") {
        return Ok(path.clone());
    }
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    // Something that has no path, such as a pipe; or nothing, and the node says so.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
    if let Ok(file) = opened {
        check_kind(&file).map_err(|error| error.at(&operand.typed))?;
    }
    Ok(path.clone())
}

/// Returns the nodes of operands, each once.
fn nodes<'a>(operands: impl Iterator<Item = &'a CopyOperand>, port: u16) -> Result<Vec<CopyNode>> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut nodes: Vec<CopyNode> = Vec::new();
    for operand in operands {
        for host in &operand.hosts {
            let Some(&place) = places.get(host.as_str()) else {
                places.insert(host, nodes.len());
                nodes.push(CopyNode {
                    name: host.clone(),
                    address: NodeAddress {
                        host: host.clone(),
                        port: if operand.is_local { 0 } else { port },
                    },
                    user: operand.user.clone(),
                    is_local: operand.is_local,
                });
                continue;
            };
            if nodes[place].user != operand.user {
                let named = |user: &Option<String>| match user {
                    Some(user) => format!("{user}@{host}"),
                    None => host.clone(),
                };
                let (one, other) = (named(&nodes[place].user), named(&operand.user));
                let what = format!("{one} and {other} are one host for two users");
                return Err(Error::new(Code::Usage, what)
                    .remedy("name the same user in all operands of a host"));
            }
        }
    }
    Ok(nodes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn every_host_of_a_job_stands_for_itself() {
        let typed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let job = |name: &str| match name {
            "SLURM_JOB_ID" => Some("7".into()),
            "SLURM_JOB_NODELIST" => Some("n[1-2]".into()),
            _ => None,
        };
        let found = of_job(typed(&["n1:/x", "*:/y"]), || SlurmJob::of(job)).unwrap();
        assert_eq!([&found[0].hosts[..], &found[1].hosts[..]], [&["n1"][..], &["n1", "n2"][..]]);
        let error = of_job(typed(&["/x", "*:/y"]), || Ok(None)).unwrap_err();
        assert!(error.code == Code::Usage && error.message.starts_with("*:/y: "), "{error}");
        of_job(typed(&["/x", "n:/y"]), || panic!("nobody needs it")).unwrap();
    }

    /// A broadcast from a path of the host that the script runs on took half as long again.
    #[test]
    fn a_host_of_a_job_has_one_node_for_its_local_paths_too() {
        let typed = |texts: &[&str]| -> Vec<Operand> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let placed = |texts: &[&str], own| {
            let operands = on_own_host(typed(texts), own, Path::new("/")).unwrap();
            operands.iter().map(ToString::to_string).collect::<Vec<String>>()
        };
        assert_eq!(placed(&["/x", "n[1-2]:/y"], Some("n1")), ["n1:/x", "n1,n2:/y"]);
        assert_eq!(placed(&["/x", "n2:/y"], Some("n1")), ["/x", "n2:/y"], "it is not named");
        assert_eq!(placed(&["/x", "me@n1:/y"], Some("n1")), ["/x", "me@n1:/y"], "another user's");
        assert_eq!(placed(&["/x", "n1:/y"], None), ["/x", "n1:/y"]);
    }

    #[test]
    fn nodes_are_in_the_order_of_their_mention_and_have_one_user_each() {
        let operand = |text: &str| {
            let operand: Operand = text.parse().unwrap();
            operand_of(&operand, "source", Path::new("/")).unwrap()
        };
        let names = |texts: &[&str]| {
            let operands: Vec<CopyOperand> = texts.iter().map(|text| operand(text)).collect();
            nodes(operands.iter(), 5000)
                .map(|nodes| nodes.iter().map(|node| node.address.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(
            names(&["b,a,b:/x", "c:/x", "/x", "a:/y"]).unwrap(),
            ["b:5000", "a:5000", "c:5000", "source:0"]
        );
        let error = names(&["me@a:/x", "b,a:/y"]).unwrap_err();
        assert!(error.code == Code::Usage && error.message.starts_with("me@a and a "), "{error}");
    }

    #[test]
    fn a_drive_is_no_host() {
        let check = |text: &str| check_remote(&text.parse().unwrap());
        let error = check("C:\\data\\x").unwrap_err();
        assert!(error.code == Code::Usage && error.remedy.unwrap().contains("/mnt/c/"));
        for text in ["c:/data", "C:x", "cc:\\x", "./C:\\x"] {
            check(text).unwrap();
        }
    }
}
