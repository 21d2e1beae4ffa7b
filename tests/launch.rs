//! Nodes that are started over ssh: a real sshd, real sessions, real files.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::process::Command;

use support::sshd::{SshHost, Sshd};
use support::{code, run, stderr};

#[test]
fn sessions_have_the_home_the_path_and_the_shell_of_their_host() {
    let hosts = [
        SshHost::new("plain"),
        SshHost::new("csh").shell("/bin/csh"),
        SshHost::new("fish").shell("/usr/bin/fish"),
        SshHost::new("loud").first("echo Welcome"),
    ];
    let Some(sshd) = Sshd::start(&hosts) else { return };
    let question = "pwd; printenv HOME PATH; cat /proc/self/stat | cut -d' ' -f4 | xargs -I % \
                    cat /proc/%/comm";
    for (host, shell) in [("plain", "sh"), ("csh", "csh"), ("fish", "fish"), ("loud", "sh")] {
        let output = run(Command::new(sshd.ssh()).args(["-o", "BatchMode=yes", host, question]));
        assert_eq!(code(&output), 0, "{host}: {}", stderr(&output));
        let home = sshd.home(host).display().to_string();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", sshd.programs(host).display());
        let expected = format!("{home}\n{home}\n{path}\n");
        let said = String::from_utf8(output.stdout).unwrap();
        let said = said.strip_prefix("Welcome\n").unwrap_or(&said);
        assert!(said.starts_with(&expected), "{host}: {said}");
        assert!(said[expected.len()..].contains(shell), "{host}: {said}");
    }
}
