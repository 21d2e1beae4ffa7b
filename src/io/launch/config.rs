//! Parameters of launched nodes, and of their start on other hosts.

use std::ffi::OsString;
use std::path::Path;

use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchCommand;
use crate::core::launch::port_range::PortRange;
use crate::io::log;

/// Mark of a process that was started as a node, and of its children. Such a process starts no
/// nodes: a wrong program that starts nodes would start itself forever.
pub(super) const LAUNCHED: &str = "CEP_FAST_LAUNCHED";

/// Parameters of launched nodes, wherever they are started.
#[derive(Clone, Debug)]
pub(crate) struct LaunchConfig<'a> {
    /// The `cep-fast` program here, if it is known.
    pub(crate) program: Option<&'a Path>,
    /// Root directory of the nodes.
    pub(crate) root: &'a Path,
    /// Key of this transfer's control sessions in hex digits; it is passed on standard input, never
    /// on the command line.
    pub(crate) secret: &'a str,
    pub(crate) slots: Option<u32>,
    /// Ports at which they listen, instead of those of their rows.
    pub(crate) ports: Option<PortRange>,
    pub(crate) purpose: LaunchPurpose,
}

/// Purpose of launched nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LaunchPurpose {
    /// One transfer.
    Transfer,
    /// Several transfers in turn, with the load of their machines.
    Measure,
    /// The examination of their machines.
    Examine,
}

/// Parameters of the start of nodes on other hosts.
#[derive(Clone)]
pub(crate) struct HostConfig<'a> {
    pub(crate) starter: HostStarter,
    /// True if the program is sent to hosts that have none.
    pub(crate) deploys: bool,
    /// Returns true once nobody wants the nodes any more.
    pub(crate) is_cancelled: &'a dyn Fn() -> bool,
}

/// Command that runs another one on a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HostStarter {
    /// `ssh`, or what was named instead, with options.
    Ssh(Vec<String>),
    /// Another command.
    Command(LaunchCommand),
}

impl HostStarter {
    /// Parses the command of `--ssh`.
    ///
    /// # Errors
    /// `Code::Usage` if it is none.
    pub(crate) fn ssh(command: &str) -> Result<HostStarter> {
        let words = shlex::split(command).filter(|words| !words.is_empty());
        words.map(HostStarter::Ssh).ok_or_else(|| {
            Error::new(Code::Usage, format!("--ssh {command:?} is no command"))
                .remedy("name a program, with options if it takes some: --ssh 'ssh -p 2222'")
        })
    }
}

impl LaunchConfig<'_> {
    /// Returns the program for nodes here.
    ///
    /// # Errors
    /// `Code::Usage` if none is named, or in a process that was started as a node itself.
    pub(super) fn program(&self) -> Result<&Path> {
        let program = self.program.ok_or_else(|| {
            Error::new(Code::Usage, "no program is named for the nodes that are to be started here")
                .remedy("set Settings::program to the path of cep-fast")
        })?;
        check_program(std::env::var_os(LAUNCHED).is_some(), program)?;
        Ok(program)
    }

    /// Returns the arguments that nodes have everywhere.
    pub(super) fn node_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--root".into(), self.root.into()];
        arguments.extend(log::node_arguments().into_iter().map(OsString::from));
        match self.purpose {
            LaunchPurpose::Transfer => {}
            LaunchPurpose::Measure => arguments.push("--measured".into()),
            LaunchPurpose::Examine => arguments.push("--examined".into()),
        }
        if let Some(slots) = self.slots {
            arguments.extend(["--slots".into(), slots.to_string().into()]);
        }
        if let Some(ports) = self.ports {
            arguments.extend(["--ports".into(), ports.to_string().into()]);
        }
        arguments
    }

    /// Returns the port of a node whose row has `port`; 0 for any that it may have.
    pub(super) fn port(&self, port: u16) -> u16 {
        if self.ports.is_none_or(|ports| ports.contains(port)) { port } else { 0 }
    }
}

fn check_program(was_launched: bool, program: &Path) -> Result<()> {
    if !was_launched {
        return Ok(());
    }
    let what = format!(
        "this process was started as a node, and would start {} as more of them",
        program.display()
    );
    Err(Error::new(Code::Usage, what)
        .remedy(format!("name the cep-fast program in Settings::program, or unset {LAUNCHED}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_launched_launches_no_nodes() {
        let error = check_program(true, Path::new("/usr/bin/mine"))
            .expect_err("it would start itself for ever");
        assert_eq!(error.code, Code::Usage);
        assert!(error.message.contains("/usr/bin/mine"), "{error}");
    }
}
