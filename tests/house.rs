//! The rules of the house, kept by reading the sources: arrows go one way, the pure core takes
//! nothing, `unsafe` lives in few places, files stay small. What is forbidden and why is in
//! docs/ARCHITECTURE.md.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "house/imports.rs"]
mod imports;
#[path = "house/shape.rs"]
mod shape;
#[path = "house/source.rs"]
mod source;

use std::fs;
use std::path::PathBuf;

use source::{PATHS, Source, code, home, none, sources, words};

/// Folders that each folder of `src` may use: the deciding one uses no other.
const WINGS: [(&str, &[&str]); 4] =
    [("core", &[]), ("io", &["core"]), ("app", &["core", "io"]), ("testing", &["core", "io"])];

/// Rooms that each room may use, besides the crates under this one. A room may only use those above
/// it, so that no two use each other.
const ARROWS: [(&str, &[&str]); 41] = [
    ("core/units", &[]),
    ("core/load", &[]),
    ("core/error", &["core/units"]),
    ("core/options", &["core/units"]),
    ("core/spec", &["core/error", "core/units"]),
    ("core/access", &["core/spec"]),
    ("core/report", &["core/error", "core/load", "core/units"]),
    ("core/wire", &["core/error", "core/load", "core/options", "core/spec", "core/units"]),
    ("core/launch", &["core/error", "core/spec", "core/units", "core/wire"]),
    ("core/seal", &["core/options", "core/wire"]),
    ("core/piece", &["core/units", "core/wire"]),
    ("core/block_grid", &["core/units"]),
    ("core/store", &["core/units"]),
    ("core/plan", &["core/error", "core/options", "core/units"]),
    ("core/check", &["core/block_grid", "core/options", "core/units", "core/wire", "crc"]),
    (
        "core/receiver",
        &["core/block_grid", "core/check", "core/error", "core/piece", "core/units", "core/wire"],
    ),
    (
        "core/rail",
        &[
            "core/check",
            "core/error",
            "core/options",
            "core/piece",
            "core/receiver",
            "core/units",
            "core/wire",
        ],
    ),
    (
        "core/node",
        &[
            "core/block_grid",
            "core/check",
            "core/error",
            "core/options",
            "core/piece",
            "core/rail",
            "core/receiver",
            "core/spec",
            "core/units",
            "core/wire",
        ],
    ),
    (
        "core/master",
        &[
            "core/block_grid",
            "core/check",
            "core/error",
            "core/options",
            "core/plan",
            "core/receiver",
            "core/report",
            "core/spec",
            "core/units",
            "core/wire",
        ],
    ),
    ("core/sim", &["core", "random"]),
    ("core/doctor", &["core/receiver", "core/report", "core/units"]),
    ("core/fleet", &["core/units", "random"]),
    ("io/clock", &["core/units"]),
    ("io/log", &["core/units"]),
    ("io/event_writer", &["core/error"]),
    ("io/system_calls", &["core/error"]),
    (
        "io/store",
        &["core/error", "core/options", "core/spec", "core/store", "core/units", "random"],
    ),
    ("io/session", &["core/access", "core/error", "core/seal", "core/spec", "core/wire"]),
    ("io/confine", &["core/error"]),
    ("io/rail", &["core", "io/clock", "io/log", "io/store", "ring", "affinity"]),
    (
        "io/node",
        &[
            "core",
            "io/clock",
            "io/confine",
            "io/log",
            "io/rail",
            "io/session",
            "io/store",
            "io/system_calls",
            "affinity",
        ],
    ),
    ("io/master", &["core", "io/clock", "io/session", "io/system_calls"]),
    ("io/launch", &["core", "io/clock", "io/log", "io/node", "io/session", "affinity"]),
    ("app/report_table", &["core/report", "core/units"]),
    ("app/report_text", &["core/report", "core/units", "app/report_table"]),
    ("app/transfer", &["core", "io/clock", "io/launch", "io/master", "io/node", "io/session"]),
    ("app/bench", &["core/fleet", "core/load", "core/report", "core/spec", "core/units", "svg"]),
    (
        "app/doctor",
        &["core/doctor", "core/report", "core/units", "io/confine", "io/node", "ring", "affinity"],
    ),
    ("app/cli", &["core", "io", "app/bench", "app/doctor", "app/transfer", "affinity", "svg"]),
    // They play master, peers and kernel to the machines, and are in no program but those of
    // fuzz/ and bench/.
    ("testing/fuzzing", &["core", "io/session", "io/store"]),
    ("testing/stub_nodes", &["core", "io/master", "io/session"]),
];

/// The crates under this one; like a module, each is named by those who may use it.
const CRATES: [&str; 6] = ["ring", "affinity", "crc", "random", "svg", "netlab"];

/// Crates that each of them may use. None knows of the program.
const SMALL: [(&str, &[&str]); 6] = [
    ("ring", &["random"]),
    ("affinity", &[]),
    ("crc", &[]),
    ("random", &[]),
    ("svg", &[]),
    ("netlab", &["random"]),
];

/// Folder of code that the simulator runs: time, randomness, buffers and results are arguments.
const PURE: &str = "src/core/";

/// Names that pure code must not use, with the reason.
const BANNED: [(&str, &str); 23] = [
    ("Instant", "time is an argument: a Moment"),
    ("SystemTime", "time is an argument: a Moment"),
    ("Clock", "time is an argument: a Moment"),
    ("sleep", "a machine says when it wants a Tick"),
    ("thread", "machines are driven by one thread and know of none"),
    ("Mutex", "machines are driven by one thread and know of none"),
    ("RwLock", "machines are driven by one thread and know of none"),
    ("mpsc", "machines are driven by one thread and know of none"),
    ("crossbeam_channel", "machines are driven by one thread and know of none"),
    ("TcpStream", "sockets belong to session, rail, node and master::run"),
    ("TcpListener", "sockets belong to session, rail, node and master::run"),
    ("UdpSocket", "sockets belong to session, rail, node and master::run"),
    ("mio", "sockets belong to session, rail, node and master::run"),
    ("ring", "operations belong to the rail"),
    ("OpenOptions", "files belong to store and rail"),
    ("fs", "files belong to store and rail"),
    ("nix", "the operating system belongs to store, session and rail"),
    ("libc", "the operating system belongs to store, session and rail"),
    ("env", "settings are arguments"),
    ("getrandom", "randomness is an argument"),
    ("HashMap", "its order differs from run to run: take a BTreeMap"),
    ("HashSet", "its order differs from run to run: take a BTreeSet"),
    ("println", "only the command line prints"),
];

/// Files that may contain `unsafe`: next to the kernel, at processor features that not all have,
/// and in counting allocators of a test and a benchmark.
const UNSAFE: [&str; 8] = [
    "ring/src/",
    "ring/tests/allocations.rs",
    "src/io/rail/tests/counting.rs",
    "affinity/src/memory.rs",
    "crc/src/fold.rs",
    "bench/src/raw/",
    "bench/src/counting.rs",
    "netlab/src/relay/tun.rs",
];

/// Lines of a file without its tests. What would pass it is two files.
const LINES_MAX: usize = 500;

#[test]
fn arrows_go_one_way() {
    let mut faults = Vec::new();
    for (at, (room, allowed)) in ARROWS.iter().enumerate() {
        let (wing, _) = room.split_once('/').unwrap();
        let wings = WINGS.iter().find(|(name, _)| *name == wing).unwrap().1;
        for name in allowed.iter().filter(|name| !CRATES.contains(name)) {
            let is_above = ARROWS[..at].iter().any(|(above, _)| is_within(above, name));
            assert!(is_above, "ARROWS: {room} lists {name}, which is not above it");
            let other = name.split('/').next().unwrap();
            assert!(other == wing || wings.contains(&other), "WINGS: {wing} may not use {other}");
        }
    }
    for source in sources("src") {
        let Some(room) = source.room() else { continue };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            faults.push(format!("{}: room {room} is not in ARROWS", source.path));
            continue;
        };
        for used in uses(&source.code) {
            if used != room && !allowed.iter().any(|name| is_within(&used, name)) {
                let may = allowed.join(", ");
                faults.push(format!("{}: {room} uses {used}; it may use {may}", source.path));
            }
        }
    }
    none(&faults);
}

/// Returns true if `room` is `place`, or lies in the wing of that name.
fn is_within(room: &str, place: &str) -> bool {
    room == place || room.split_once('/').is_some_and(|(wing, _)| wing == place)
}

#[test]
fn the_small_crates_know_nothing_of_the_project() {
    let mut faults = Vec::new();
    for (folder, allowed) in SMALL {
        let strangers = CRATES.into_iter().chain(["cep_fast"]);
        let strangers: Vec<&str> =
            strangers.filter(|name| *name != folder && !allowed.contains(name)).collect();
        for source in sources(folder).filter(|source| source.path.contains("/src/")) {
            for stranger in strangers.iter().filter(|name| paths_into(&source.code, name)) {
                faults.push(format!("{}: knows of {stranger}", source.path));
            }
        }
        let manifest = fs::read_to_string(home().join(folder).join("Cargo.toml")).unwrap();
        for line in manifest.lines().filter(|line| !line.starts_with('#')) {
            let depends = |name: &&str| {
                line.split([' ', '.']).next() == Some(name) && line.contains("workspace")
            };
            if line.contains("path =") || strangers.iter().any(depends) {
                faults.push(format!("{folder}/Cargo.toml: {line}: a crate that it may not use"));
            }
        }
    }
    none(&faults);
}

#[test]
fn the_pure_core_takes_nothing_and_is_given_everything() {
    let mut faults = Vec::new();
    for source in sources("src").filter(|source| source.path.starts_with(PURE)) {
        for (number, line) in source.code.lines().enumerate() {
            for (word, why) in
                BANNED.iter().filter(|(word, _)| words(line).any(|found| found == *word))
            {
                faults.push(format!("{}:{}: {word}: {why}", source.path, number + 1));
            }
        }
    }
    none(&faults);
}

#[test]
fn unsafe_lives_next_to_the_kernel() {
    let mut faults = Vec::new();
    for source in PATHS.into_iter().flat_map(sources) {
        let may = UNSAFE.iter().any(|place| source.path.starts_with(place));
        if !may && words(&source.code).any(|word| word == "unsafe") {
            faults.push(format!("{}: unsafe outside {}", source.path, UNSAFE.join(", ")));
        }
    }
    none(&faults);
}

#[test]
fn no_print_can_end_a_thread() {
    let mut faults = Vec::new();
    for source in ["src", "ring", "affinity", "crc"].into_iter().flat_map(sources) {
        for (number, line) in source.code.lines().enumerate() {
            if ["print!(", "println!(", "dbg!("].iter().any(|call| line.contains(call)) {
                let why = "panics where nobody can read; use error::say, or writeln";
                faults.push(format!("{}:{}: {why}", source.path, number + 1));
            }
        }
    }
    none(&faults);
}

#[test]
fn files_are_small_and_say_why_they_are_there() {
    let mut faults = Vec::new();
    for source in PATHS.into_iter().flat_map(sources) {
        let lines = source.code.lines().count();
        if lines > LINES_MAX {
            faults
                .push(format!("{}: {lines} lines without tests; {LINES_MAX} may be", source.path));
        }
        if !source.text.starts_with("//!") {
            faults
                .push(format!("{}: begins without a `//!` that says what it is for", source.path));
        }
    }
    none(&faults);
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    let root = fs::read_to_string(home().join("Cargo.toml")).unwrap();
    let members = root.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    let members =
        members.lines().filter_map(|line| line.trim().strip_prefix('"')?.split('"').next());
    let mut manifests: Vec<PathBuf> =
        members.map(|member| home().join(member).join("Cargo.toml")).collect();
    manifests.push(home().join("Cargo.toml"));
    assert!(manifests.len() >= 4, "the members were not found");
    for manifest in manifests {
        let text = fs::read_to_string(&manifest).unwrap();
        assert!(
            text.contains("\n[lints]\nworkspace = true\n"),
            "{}: has no workspace lints",
            manifest.display()
        );
    }
}

impl Source {
    /// The room of the library that the file belongs to, such as `core/wire`: a file or a folder in
    /// one of the wings.
    fn room(&self) -> Option<String> {
        let (wing, below) = self.path.strip_prefix("src/").unwrap().split_once('/')?;
        let room = below.split('/').next().unwrap().trim_end_matches(".rs");
        let room = room.strip_suffix("_tests").unwrap_or(room);
        (room != "mod").then(|| format!("{wing}/{room}"))
    }
}

/// The rooms of this crate, and the crates under it, that `code` names in paths.
fn uses(code: &str) -> Vec<String> {
    let mut uses = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        for (head, below) in heads(&code[at + "crate::".len()..]) {
            if WINGS.iter().any(|(wing, _)| *wing == head) {
                let below = heads(below.strip_prefix("::").unwrap_or(below));
                uses.extend(below.into_iter().map(|(room, _)| format!("{head}/{room}")));
            } else {
                uses.push(exported(&head));
            }
        }
    }
    uses.extend(CRATES.into_iter().filter(|name| paths_into(code, name)).map(String::from));
    uses.sort_unstable();
    uses.dedup();
    uses
}

/// The first word of a path and what follows it; of each entry, where a list begins in braces.
fn heads(path: &str) -> Vec<(String, &str)> {
    let head = |entry: &str| words(entry).next().map(str::to_owned);
    let Some(list) = path.strip_prefix('{') else {
        return head(path).map(|word| (word.clone(), &path[word.len()..])).into_iter().collect();
    };
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                let entry = list[start..at].trim_start();
                heads.extend(head(entry).map(|word| (word.clone(), &entry[word.len()..])));
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

/// The room that a name comes from which the crate's root exports.
fn exported(word: &str) -> String {
    match word {
        "Code" | "Error" | "Result" | "error" => "core/error",
        "Spec" | "spec" => "core/spec",
        "Report" | "report" => "core/report",
        "CheckKind" | "DataPath" | "Scheduler" | "TransferOptions" => "core/options",
        "units" => "core/units",
        "Transfer" | "Settings" | "TransferHandle" => "app/transfer",
        "cli" => "app/cli",
        other => other,
    }
    .into()
}

/// Returns true if a path of `code` begins with this crate's name.
fn paths_into(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        code[at + name.len()..].starts_with("::")
            && !before.is_alphanumeric()
            && !"_:".contains(before)
    })
}

#[test]
fn the_reader_of_sources_reads_them() {
    let text = "//! doc\nuse crate::{core::{units::{A, B}, wire}, Code}; // crate::cli\n\
                ring::probe();\nuse super::ring::x;\nuse crate::io::node;\n\
                #[cfg(test)]\n#[allow(x)]\nmod tests {\n use crate::cli;\n}\n";
    assert_eq!(uses(&code(text)), ["core/error", "core/units", "core/wire", "io/node", "ring"]);
    assert_eq!(code(text).lines().count(), 5);
}
