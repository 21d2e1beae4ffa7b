//! tools/bootstrap on systems with other package managers: what it asks them for. The managers are
//! scripts that write down their words.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// What the script calls besides package managers, cargo and rustc.
const TOOLS: [&str; 10] =
    ["bash", "env", "dirname", "sed", "cut", "sort", "head", "cat", "tr", "rm"];

/// A search path with nothing but what a test puts there.
struct System {
    folder: TempDir,
}

impl System {
    /// Makes one with the tools, a toolchain, and stubs by name and text.
    fn with(stubs: &[(&str, &str)]) -> System {
        let system = System { folder: tempfile::tempdir().unwrap() };
        for tool in TOOLS {
            let found = ["/usr/bin", "/bin"].map(|at| Path::new(at).join(tool));
            let found = found.into_iter().find(|path| path.exists()).unwrap();
            symlink(found, system.path(tool)).unwrap();
        }
        let toolchain = [("cargo", ""), ("rustc", "echo rustc 9.0.0"), ("id", "echo 0")];
        for (name, text) in toolchain.iter().chain(stubs) {
            let script = format!("#!/bin/bash\n{text}\n");
            fs::write(system.path(name), script).unwrap();
            fs::set_permissions(system.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        system
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn bootstrap(&self) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/bootstrap");
        let mut command = Command::new("/bin/bash");
        command.arg(script).env_clear().env("PATH", self.folder.path());
        command.env("CALLS", self.path("calls")).output().unwrap()
    }

    /// Returns the calls of package managers, one a line.
    fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }
}

/// Writes its words down.
const NOTES: &str = "echo \"${0##*/} $*\" >>\"$CALLS\"";
const NOTHING_IS_INSTALLED: (&str, &str) = ("rpm", "exit 1");
const HWLOC_IS_OLD: (&str, &str) = ("pkg-config", "exit 1");

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_system_with_dnf_gets_the_packages_by_its_names() {
    let system = System::with(&[("dnf", NOTES), NOTHING_IS_INSTALLED, HWLOC_IS_OLD]);
    let output = system.bootstrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let calls = system.calls();
    let [build, tests] = calls.lines().collect::<Vec<_>>()[..] else { panic!("{calls}") };
    assert!(build.starts_with("dnf ") && build.contains(" install "), "{build}");
    let packages = "gcc glibc-devel hwloc-devel systemd-devel pkgconf-pkg-config";
    assert!(build.ends_with(packages), "{build}");
    for package in ["iproute", "iproute-tc", "openssh-clients", "tcsh", "slurm-slurmd", "fish"] {
        assert!(tests.split(' ').any(|word| word == package), "{package}: {tests}");
    }
    assert!(text(&output.stderr).contains("older than 2.8"), "{}", text(&output.stderr));
}

#[test]
fn a_system_with_zypper_gets_the_packages_by_its_names() {
    let system = System::with(&[("zypper", NOTES), NOTHING_IS_INSTALLED, ("pkg-config", "")]);
    let output = system.bootstrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let calls = system.calls();
    let [build, tests] = calls.lines().collect::<Vec<_>>()[..] else { panic!("{calls}") };
    assert!(build.starts_with("zypper ") && build.contains(" install "), "{build}");
    assert!(build.ends_with("gcc glibc-devel hwloc-devel libudev-devel pkg-config"), "{build}");
    // Two packages of Debian are one here, and it is asked for once.
    assert_eq!(tests.split(' ').filter(|word| *word == "slurm").count(), 1, "{tests}");
    assert!(!text(&output.stderr).contains("older"), "{}", text(&output.stderr));
}

#[test]
fn what_is_installed_is_not_asked_for() {
    let rpm = "[ \"${*: -1}\" != hwloc-devel ]";
    let system = System::with(&[("dnf", NOTES), ("rpm", rpm), ("pkg-config", "")]);
    assert!(system.bootstrap().status.success());
    let calls = system.calls();
    assert!(calls.ends_with(" install hwloc-devel\n") && calls.lines().count() == 1, "{calls}");
}

#[test]
fn packages_of_tests_that_no_repository_has_are_named_and_those_of_the_build_end_it() {
    let lacks = |package: &str| {
        format!("{NOTES}\nfor word; do if [ \"$word\" = {package} ]; then exit 1; fi; done")
    };
    let system = System::with(&[("dnf", &lacks("fish")), NOTHING_IS_INSTALLED, HWLOC_IS_OLD]);
    let output = system.bootstrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("are skipped: fish; ") && said.contains("EPEL"), "{said}");
    assert!(system.calls().contains(" install tcsh\n"), "{}", system.calls());

    let system =
        System::with(&[("dnf", &lacks("hwloc-devel")), NOTHING_IS_INSTALLED, HWLOC_IS_OLD]);
    let output = system.bootstrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("dnf could not install: gcc") && said.contains("CRB"), "{said}");
}

#[test]
fn a_system_without_a_known_package_manager_is_told_what_to_install() {
    let system = System::with(&[]);
    let output = system.bootstrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Debian calls: gcc libc6-dev libhwloc-dev"), "{said}");
}
