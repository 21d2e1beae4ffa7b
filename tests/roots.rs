//! Several roots with rights, as whole programs: what is let through, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use support::{Daemon, cep_fast, code, folder, listing, random_bytes, run, stderr};

const BYTES: usize = 300_000;

struct RootsHome {
    home: tempfile::TempDir,
}

impl RootsHome {
    /// `in` holds the file `x`, `out` is empty.
    fn new() -> RootsHome {
        let home = folder();
        for name in ["in", "out"] {
            fs::create_dir(home.path().join(name)).unwrap();
        }
        fs::write(home.path().join("in/x"), random_bytes(1, BYTES)).unwrap();
        RootsHome { home }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A value of `--root` for the folder `name`.
    fn root(&self, before: &str, name: &str, after: &str) -> String {
        format!("{before}{}{after}", self.at(name).display())
    }

    fn run(&self, spec: &str) -> Output {
        let file = self.at("spec");
        fs::write(&file, spec).unwrap();
        run(cep_fast(&["run", "--progress", "never"]).arg(file))
    }
}

#[test]
fn rows_go_to_the_roots_that_they_name_and_relays_read_back_what_they_wrote() {
    let places = RootsHome::new();
    let read = places.root("in=", "in", ":ro");
    let write = places.root("out=", "out", ":wo");
    let daemon = || Daemon::start(Path::new(&read), &["--root", &write]);
    let (a, b, c) = (daemon(), daemon(), daemon());
    let (a, b, c) = (&a.address, &b.address, &c.address);
    let last = BYTES - 1;
    let spec = format!(
        "id roots\nwriter {a} file:///in/x 0 0-{last}\nreader {b} file:///out/b 0 0-{last}\n\
         reader {c} file:///out/c 0 0-{last}\n"
    );
    let output = places.run(&spec);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for name in ["out/b", "out/c"] {
        assert!(fs::read(places.at(name)).unwrap() == random_bytes(1, BYTES), "{name}");
    }
    let before = listing(places.home.path());
    let cases = [
        (format!("{a} file:///out/b"), format!("{b} file:///out/y"), "writer", "write-only"),
        (format!("{a} file:///in/x"), format!("{b} file:///in/y"), "reader", "read-only"),
        (format!("{a} file:///x"), format!("{b} file:///out/y"), "writer", "below /in, /out"),
        (format!("{a} file:///in/x"), format!("{b} file:///y"), "reader", "below /in, /out"),
    ];
    for (from, to, role, reason) in cases {
        let spec = format!("id no\nwriter {from} 0 0-{last}\nreader {to} 0 0-{last}\n");
        let output = places.run(&spec);
        let said = stderr(&output);
        assert_eq!(code(&output), 4, "{said}");
        for word in [format!("{role} row"), format!("0-{last}"), reason.into()] {
            assert!(said.contains(&word), "{word}: {said}");
        }
        assert_eq!(listing(places.home.path()), before);
    }
}

#[test]
fn a_node_may_be_kept_from_serving_and_from_writing() {
    let places = RootsHome::new();
    let whole = places.home.path();
    let (silent, reader) =
        (Daemon::start(whole, &["--no-serve"]), Daemon::start(whole, &["--no-write"]));
    let transfer = |from: &Daemon, to: &Daemon| {
        let (from, to) = (&from.address, &to.address);
        places.run(&format!(
            "id may\nwriter {from} file:///in/x 0 0-999\nreader {to} file:///out/y 0 0-999\n"
        ))
    };
    assert_eq!(code(&transfer(&reader, &silent)), 0);
    let output = transfer(&silent, &reader);
    assert_eq!(code(&output), 4);
    let said = stderr(&output);
    assert!(said.contains("--no-serve") || said.contains("--no-write"), "{said}");
}

#[test]
fn mistakes_in_roots_end_with_2_and_name_the_option() {
    let places = RootsHome::new();
    fs::create_dir(places.at("in/sub")).unwrap();
    fs::write(places.at("file"), "").unwrap();
    let root = |before: &str, name: &str, after: &str| places.root(before, name, after);
    let cases = [
        (vec![root("a=", "in", ""), root("a=", "out", "")], "two roots are named a"),
        (vec![root("a=", "in", ""), root("b=", "in/sub", ":ro")], "more may be done"),
        (vec![root(".=", "in", "")], "a name"),
        (vec![root("=", "in", "")], "a name"),
        (vec![root("a=", "gone", "")], "is no directory"),
        (vec![root("", "gone", "")], "is no directory"),
        (vec![root("a=", "file", "")], "is no directory"),
        (vec![root("a=", "in", ":rw")], "`:rw` is no right"),
        (vec![], "--root DIR"),
    ];
    for (roots, why) in cases {
        let mut command = cep_fast(&["node", "--listen", "127.0.0.1:0", "--insecure-no-key"]);
        roots.iter().for_each(|root| _ = command.arg("--root").arg(root));
        let output = run(&mut command);
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{roots:?}: {said}");
        assert!(said.contains(why) && said.contains("--root"), "{roots:?}: {said}");
    }
}

#[test]
fn a_directory_whose_name_looks_like_a_right_is_served() {
    let places = RootsHome::new();
    for name in ["x:ro", "a=b"] {
        let odd = places.at(name);
        fs::create_dir(&odd).unwrap();
        let node = Daemon::start(&odd, &[]);
        let node = &node.address;
        let spec =
            format!("id odd\nwriter {node} pattern:1 0 0-99\nreader {node} file:///y 0 0-99\n");
        let output = places.run(&spec);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(odd.join("y").exists());
    }
}
