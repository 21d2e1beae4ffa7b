//! A few hundred transfers leave nothing behind at the daemons that carried them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::path::Path;
use std::process::Command;

/// Every transfer left the memory of its ring's table at both ends.
#[test]
fn a_few_hundred_transfers_leave_nothing_behind() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_cep-bench")).with_file_name("cep-fast");
    assert!(program.is_file(), "build the whole workspace first: no {}", program.display());
    let mut soak = Command::new(env!("CARGO_BIN_EXE_cep-bench"));
    soak.args(["soak", "--transfers", "300", "--warm", "150", "--growth-kib", "2048", "--dir"])
        .arg(folder.path());
    let output = soak.arg("--cep-fast").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.ends_with("level\n"), "{text}");
}
