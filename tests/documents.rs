//! Documents that the code could contradict: links, options, tests, paths, numbers and fields that
//! they name are there, and their lines fit a terminal.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use support::{cep_fast, folder, json, run};

/// Options of other programs that the documents name.
const FOREIGN_OPTIONS: [&str; 18] = [
    "--bcast",
    "--bin",
    "--features",
    "--host",
    "--inplace",
    "--lib",
    "--locked",
    "--no-default-features",
    "--no-deps",
    "--nocapture",
    "--open",
    "--release",
    "--security-opt",
    "--test",
    "--times",
    "--workspace",
    "--exclusive",
    "--overlap",
];

/// Options that earlier versions had; decisions say why they went.
const FORMER_OPTIONS: [&str; 1] = ["--pace"];

const COLUMNS_MAX: usize = 100;

#[test]
fn lines_fit_a_terminal() {
    let mut faults = Vec::new();
    for document in documents() {
        for (number, line) in document.prose() {
            // A single word, such as the name of a test, cannot be broken.
            let is_one_word = !line.trim().trim_start_matches("- ").contains(' ');
            if line.chars().count() > COLUMNS_MAX && !is_one_word {
                faults
                    .push(format!("{}:{number}: longer than {COLUMNS_MAX} columns", document.path));
            }
        }
    }
    none(&faults);
}

/// The third column of the glossary's tables names types, fields, files and folders.
#[test]
fn terms_of_the_glossary_are_in_the_code() {
    let sources: String = ["src", "ring", "affinity", "crc"]
        .into_iter()
        .flat_map(|folder| texts(folder, &["rs"]))
        .map(|(_, text)| text + "\n")
        .collect();
    let known: BTreeSet<&str> = words(&sources).collect();
    let glossary = fs::read_to_string(home().join("docs/GLOSSARY.md")).unwrap();
    let (mut terms, mut faults) = (0, Vec::new());
    for line in glossary.lines() {
        let Some(code) = line.split('|').nth(3).map(str::trim) else { continue };
        let Some(name) = code.strip_prefix('`').and_then(|code| code.strip_suffix('`')) else {
            continue;
        };
        terms += 1;
        let word = name.trim_end_matches(".rs").rsplit('/').next().unwrap();
        if !known.contains(word) && !home().join(name).exists() {
            faults.push(format!("docs/GLOSSARY.md: {name} is not in the code"));
        }
    }
    assert!(terms > 50, "the tables were not read: {terms} terms");
    none(&faults);
}

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    for document in documents() {
        for target in document.links() {
            if target.starts_with("http") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target.as_str(), ""));
            let folder = home().join(&document.path).parent().unwrap().to_owned();
            let file =
                if path.is_empty() { home().join(&document.path) } else { folder.join(path) };
            if !file.exists() {
                faults.push(format!("{}: no file {path}", document.path));
            } else if !anchor.is_empty() && !anchors(&file).contains(anchor) {
                faults.push(format!("{}: no heading {target}", document.path));
            }
        }
    }
    none(&faults);
}

/// A name of four words or more in backticks is the name of a test, a function or a constant.
#[test]
fn named_tests_and_files_exist() {
    let sources: String = ["src", "tests", "ring", "affinity", "crc", "bench", "fuzz", "tools"]
        .into_iter()
        .flat_map(|folder| texts(folder, &["rs", "toml", ""]))
        .map(|(_, text)| text + "\n")
        .collect();
    let names: BTreeSet<&str> = words(&sources).collect();
    let mut faults = Vec::new();
    for document in documents() {
        for code in document.code_spans() {
            let is_name =
                code.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            if is_name && code.matches('_').count() >= 3 && !names.contains(code.as_str()) {
                faults.push(format!("{}: nothing is called {code}", document.path));
            }
            let is_path =
                ["src/", "tests/", "ring/", "affinity/", "crc/", "bench/", "fuzz/", "tools/"]
                    .iter()
                    .any(|folder| code.starts_with(folder));
            let path = code.split_whitespace().next().unwrap_or("").trim_end_matches('/');
            if is_path
                && !path.contains(['*', 'N'])
                && !path.contains("TARGET")
                && !home().join(path).exists()
            {
                faults.push(format!("{}: no file {path}", document.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn named_options_exist() {
    let mut known: BTreeSet<String> = FOREIGN_OPTIONS.into_iter().map(String::from).collect();
    let commands = ["copy", "run", "plan", "bench", "doctor", "node", "status", "cancel", "keygen"];
    for command in commands {
        let help = run(&mut cep_fast(&[command, "--help"]));
        known.extend(options(&String::from_utf8(help.stdout).unwrap()));
    }
    // Options of the benchmarks are fields of their argument structs.
    for (_, text) in texts("bench/src", &["rs"]) {
        let fields =
            text.lines().filter_map(|line| line.trim().split_once(": ").map(|(name, _)| name));
        let fields = fields.filter_map(|field| field.split(' ').next_back());
        let fields = fields.map(|field| field.replace('_', "-"));
        known.extend(fields.map(|field| format!("--{field}")));
    }
    for (_, text) in texts("tools", &[""]) {
        known.extend(options(&text));
    }
    // Those of srun.
    known.extend(options(&read("src/core/launch/slurm_job.rs")));
    let mut faults = Vec::new();
    for document in documents().filter(|document| document.path != "CHANGELOG.md") {
        let is_decision = document.path.starts_with("docs/decisions/");
        for option in options(&document.text).difference(&known) {
            if is_decision && FORMER_OPTIONS.contains(&option.as_str()) {
                continue;
            }
            faults.push(format!("{}: no command has {option}", document.path));
        }
    }
    none(&faults);
}

#[test]
fn the_fields_of_json_are_those_of_the_documents() {
    let specification = read("docs/SPECIFICATION.md");
    let section = between(&specification, "## The report as JSON", "## Promises");
    let documented = code_spans(section);
    let report = json(&run(&mut cep_fast(&["run", "/nowhere", "--json"])));
    same_fields("the report", &report, &documented);
    assert_eq!(report["scheduler"], "auto", "before a plan, the one asked for");

    let operating = read("docs/OPERATING.md");
    let planning = between(&operating, "## Planning", "## Examining a machine");
    let spec = home().join("docs/examples/picture.spec");
    let arguments = ["plan", spec.to_str().unwrap(), "--json", "--simulate"];
    let plan = json(&run(&mut cep_fast(&arguments)));
    let documented = code_spans(planning);
    same_fields("a plan", &plan, &documented);
    same_fields("a segment", &plan["segments"][0], &documented);
    same_fields("a simulation", &plan["simulated"], &documented);
    same_fields("a moment", &plan["simulated"]["timeline"][0], &documented);

    let examining = between(&operating, "## Examining a machine", "## Thousands of nodes");
    let doctor = json(&run(&mut cep_fast(&["doctor", "--json"])));
    let documented = code_spans(examining);
    same_fields("doctor", &doctor, &documented);
    same_fields("a NIC", &doctor["nics"][0], &documented);
    same_fields("a finding", &doctor["findings"][0], &documented);

    let measuring = between(&operating, "### Each node against the others", "### Threads for each");
    let arguments = ["bench", "a", "b", "--launch", "local", "--seconds", "100ms", "--json"];
    let fleet = json(&run(&mut cep_fast(&arguments)));
    let documented = code_spans(measuring);
    same_fields("a fleet", &fleet, &documented);
    same_fields("NICs of a fleet", &fleet["nics"][0], &documented);
    same_fields("a node of a fleet", &fleet["nodes"][0], &documented);
    same_fields("a NIC of a node", &fleet["nodes"][0]["nics"][0], &documented);
    same_fields("a distribution", &fleet["efficiency"], &documented);
}

#[test]
fn the_table_of_exit_statuses_is_the_one_of_the_help() {
    let help = String::from_utf8(run(&mut cep_fast(&["--help"])).stdout).unwrap();
    let readme = read("README.md");
    let table = between(&readme, "| Exit status |", "\n\n");
    let documented: BTreeSet<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()).collect();
    for status in [0, 1, 2, 3, 4, 5, 6, 7, 130] {
        let status = status.to_string();
        assert!(documented.contains(status.as_str()), "README.md has no exit status {status}");
        assert!(help.contains(&status), "--help has no exit status {status}");
    }
}

#[test]
fn the_fuzz_targets_are_those_of_the_page() {
    let page = read("docs/FUZZING.md");
    let table: BTreeSet<String> = page
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned()))
        .collect();
    let files = texts("fuzz/fuzz_targets", &["rs"]);
    let files = files.map(|(path, _)| path.file_stem().unwrap().to_str().unwrap().to_owned());
    assert_eq!(table, files.collect());
}

#[test]
fn the_crates_of_the_workspace_are_those_of_the_architecture() {
    let manifest = read("Cargo.toml");
    let members = between(&manifest, "members = [", "]");
    let architecture = read("docs/ARCHITECTURE.md");
    let named = members.lines().filter_map(|line| line.trim().strip_prefix('"')?.split('"').next());
    for member in named {
        assert!(architecture.contains(&format!("{member}/")), "ARCHITECTURE.md has no {member}/");
    }
}

#[test]
fn the_index_of_the_decisions_has_every_page_with_its_title() {
    let index =
        read("docs/decisions/README.md").split_whitespace().collect::<Vec<&str>>().join(" ");
    let pages = texts("docs/decisions", &["md"]).filter(|(path, _)| !path.ends_with("README.md"));
    let mut faults = Vec::new();
    for (path, text) in pages {
        let title = text.lines().next().unwrap().trim_start_matches("# ");
        let (number, title) = title.split_once(". ").unwrap();
        let entry =
            format!("- [{number}]({}) {title}", path.file_name().unwrap().to_str().unwrap());
        if !index.contains(&entry) {
            faults.push(format!("docs/decisions/README.md: no line `{entry}`"));
        }
    }
    none(&faults);
}

/// Limits that the pages print are those of the code.
#[test]
fn limits_are_those_of_the_code() {
    let limits = "core/wire/limits.rs";
    let mut faults = Vec::new();
    for (page, file, constant) in [
        ("docs/PROTOCOL.md", limits, "ITEMS_MAX"),
        ("docs/PROTOCOL.md", limits, "TEXT_BYTES_MAX"),
        ("docs/PROTOCOL.md", limits, "NAME_BYTES_MAX"),
        ("docs/PROTOCOL.md", limits, "SEGMENTS_MAX"),
        ("docs/PROTOCOL.md", limits, "CHECKS_MAX"),
        ("docs/PROTOCOL.md", limits, "HOLES_MAX"),
        ("docs/PROTOCOL.md", limits, "ORIGINS_MAX"),
        ("docs/PROTOCOL.md", limits, "HAVE_MAX"),
        ("docs/PROTOCOL.md", limits, "NOTES_MAX"),
        ("docs/PROTOCOL.md", limits, "RAILS_MAX"),
        ("docs/PROTOCOL.md", limits, "NODES_MAX"),
        ("docs/PROTOCOL.md", limits, "REPLICA_RANGES_MAX"),
        ("docs/PROTOCOL.md", limits, "REPLICA_VALUES_MAX"),
        ("docs/PROTOCOL.md", "core/rail/flow_credit.rs", "REQUESTS_MAX"),
        ("docs/PROTOCOL.md", "core/node/machine/limits.rs", "TRANSFERS_DEFAULT"),
        ("docs/PROTOCOL.md", "core/node/machine/limits.rs", "ROWS_AT_ONCE_MAX"),
        ("docs/OPERATING.md", limits, "NODES_MAX"),
        ("docs/OPERATING.md", limits, "SEGMENTS_MAX"),
        ("docs/OPERATING.md", "core/spec/limits.rs", "ROWS_MAX"),
        ("docs/OPERATING.md", "core/spec/validate.rs", "NODE_ROWS_MAX"),
        ("docs/SPECIFICATION.md", "core/spec/limits.rs", "ROWS_MAX"),
        ("docs/SPECIFICATION.md", "core/spec/validate.rs", "NODE_ROWS_MAX"),
        ("docs/SPECIFICATION.md", limits, "NODES_MAX"),
    ] {
        let number = grouped(constant_of(file, constant));
        if !read(page).contains(&number) {
            faults.push(format!("{page}: {constant} of {file} is {number}"));
        }
    }
    none(&faults);
}

/// `docs/control.proto` is read by people and by generators; the program's own messages are Rust.
#[test]
fn control_proto_has_every_field_with_its_tag() {
    let proto: BTreeSet<(String, String)> = read("docs/control.proto")
        .lines()
        .filter_map(|line| {
            let (left, tag) = line.trim().strip_suffix(';')?.split_once(" = ")?;
            tag.parse::<u32>().ok()?;
            Some((left.rsplit(' ').next()?.to_lowercase().replace('_', ""), tag.to_owned()))
        })
        .collect();
    let mut rust = BTreeSet::new();
    let mut tag = None;
    let is_proto =
        |path: &Path| path.ends_with("wire/proto.rs") || path.parent().unwrap().ends_with("proto");
    let source: String = texts("src", &["rs"])
        .filter(|(path, _)| is_proto(path))
        .map(|(_, source)| source)
        .collect();
    for line in source.lines().map(str::trim) {
        if let Some(attribute) = line.strip_prefix("#[prost(") {
            tag = attribute.split("tag = \"").nth(1).and_then(|rest| rest.split('"').next());
        } else if let Some(tag) = tag.take_if(|_| !line.starts_with("//")) {
            let name = line.trim_start_matches("pub(crate) ");
            let name = name.split([':', '(', ',']).next().unwrap();
            rust.insert((name.to_lowercase().replace('_', ""), tag.to_owned()));
        }
    }
    assert!(rust.len() > 80, "the fields of {} were not found", source.len());
    let missing: Vec<_> = rust.symmetric_difference(&proto).collect();
    assert!(missing.is_empty(), "docs/control.proto and src/wire/proto.rs differ in {missing:?}");
}

#[test]
fn example_specifications_have_plans() {
    for entry in fs::read_dir(home().join("docs/examples")).unwrap() {
        let path = entry.unwrap().path();
        // Scripts of jobs are submitted by tests/slurm.rs.
        if path.extension().is_none_or(|kind| kind != "spec") {
            continue;
        }
        let output = run(&mut cep_fast(&["plan", path.to_str().unwrap()]));
        assert!(output.status.success(), "{}", path.display());
    }
}

/// The specification that README.md prints is one.
#[test]
fn the_specification_of_the_readme_has_a_plan() {
    let readme = read("README.md");
    let spec = between(&readme, "```text\n", "```");
    let folder = folder();
    let file = folder.path().join("transfer.spec");
    fs::write(&file, spec).unwrap();
    let arguments =
        ["plan", file.to_str().unwrap(), "--simulate", "--kill", "10.0.0.1@200ms", "--json"];
    let simulated = &json(&run(&mut cep_fast(&arguments)))["simulated"];
    assert!(simulated["seconds"].as_f64().unwrap() > 0.2, "the kill that it prints never strikes");
}

/// One page, and what is asked about it.
struct Document {
    path: String,
    text: String,
}

impl Document {
    /// Lines outside of code blocks, with their numbers.
    fn prose(&self) -> Vec<(usize, &str)> {
        let mut is_code = false;
        let mut lines = Vec::new();
        for (at, line) in self.text.lines().enumerate() {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            if !is_code && !is_fence {
                lines.push((at + 1, line));
            }
        }
        lines
    }

    fn links(&self) -> Vec<String> {
        let prose: String = self.prose().into_iter().flat_map(|(_, line)| [line, "\n"]).collect();
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.map(str::to_owned).collect()
    }

    fn code_spans(&self) -> Vec<String> {
        let prose: Vec<&str> = self.prose().into_iter().map(|(_, line)| line).collect();
        code_spans(&prose.join("\n")).into_iter().collect()
    }
}

fn documents() -> impl Iterator<Item = Document> {
    let mut paths: Vec<PathBuf> = texts("docs", &["md"]).map(|(path, _)| path).collect();
    paths.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| home().join(name)));
    assert!(paths.len() > 50, "the documents were not found");
    paths.into_iter().map(|path| Document {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(home()).unwrap().to_str().unwrap().to_owned(),
    })
}

/// Every file below a folder that ends in one of these ways, with its text.
fn texts(folder: &str, extensions: &[&str]) -> impl Iterator<Item = (PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![home().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().map_or("", |extension| extension.to_str().unwrap());
            if path.is_dir() {
                let is_generated = path.ends_with("target") || path.ends_with("corpus");
                folders.extend((!is_generated).then_some(path));
            } else if extensions.contains(&extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found.into_iter().filter_map(|path| Some((path.clone(), fs::read_to_string(&path).ok()?)))
}

/// The anchors of a page's headings, as the usual viewers make them.
fn anchors(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    let headings = text.lines().filter_map(|line| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then(|| title.trim())
    });
    let anchor = |title: &str| -> String {
        let kept = title.to_lowercase();
        let kept =
            kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(anchor).collect()
}

/// Returns the texts in backticks.
fn code_spans(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
}

/// The options that a text names.
fn options(text: &str) -> BTreeSet<String> {
    let ends =
        |letter: char| !letter.is_ascii_lowercase() && !letter.is_ascii_digit() && letter != '-';
    let found = text.match_indices("--").filter(|(at, _)| {
        let before = text[..*at].chars().next_back().unwrap_or(' ');
        !before.is_alphanumeric() && before != '-'
    });
    let names = found.map(|(at, _)| text[at..].split(ends).next().unwrap().trim_end_matches('-'));
    names.filter(|name| name.len() > 3).map(str::to_owned).collect()
}

fn same_fields(what: &str, object: &serde_json::Value, documented: &BTreeSet<String>) {
    let object = object.as_object().unwrap_or_else(|| panic!("{what} is no object: {object}"));
    assert!(!object.is_empty(), "{what} is empty");
    for field in object.keys() {
        assert!(documented.contains(field), "no page has the field {field} of {what}");
    }
}

fn between<'text>(text: &'text str, from: &str, to: &str) -> &'text str {
    let rest = text.split_once(from).unwrap_or_else(|| panic!("no {from}")).1;
    rest.split_once(to).map_or(rest, |(section, _)| section)
}

/// The value of a constant that is a number or a power of two.
fn constant_of(file: &str, name: &str) -> u64 {
    let text = read(&format!("src/{file}"));
    let value = between(&text, &format!("const {name}: "), ";").split_once("= ").unwrap().1;
    let mut factors = value.split("<<").map(|part| part.trim().replace('_', "").parse().unwrap());
    let first: u64 = factors.next().unwrap();
    factors.fold(first, |value, shift| value << shift)
}

/// A number as the pages write it: with commas from five digits on.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
}

fn read(path: &str) -> String {
    fs::read_to_string(home().join(path)).unwrap()
}

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
