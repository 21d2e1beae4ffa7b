//! Files of a crate do not import each other in circles.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{PATHS, none, sources, words};

type Path = Vec<String>;

/// The modules of one crate.
#[derive(Default)]
struct ModuleTree {
    /// The file of each module, by its path; the crate's root has the empty path.
    files: BTreeMap<Path, String>,
    /// Names that each module takes in by `use`, with their paths from the crate's root.
    imports: BTreeMap<Path, BTreeMap<String, Path>>,
    /// Paths into this crate that the code of each module names.
    named: BTreeMap<Path, BTreeSet<Path>>,
}

impl ModuleTree {
    fn read(folder: &str) -> ModuleTree {
        let mut tree = ModuleTree::default();
        let mut texts = BTreeMap::new();
        let has_library = sources(folder).any(|source| source.path.ends_with("src/lib.rs"));
        for source in sources(folder).filter(|source| source.path.contains("src/")) {
            let is_root = source.path.ends_with("src/lib.rs")
                || (!has_library && source.path.ends_with("src/main.rs"));
            let below = source.path.rsplit_once("src/").unwrap().1.trim_end_matches(".rs");
            if below == "main" && !is_root {
                continue;
            }
            let below = below.trim_end_matches("mod").trim_end_matches('/');
            let path = if is_root { "" } else { below };
            let path: Path =
                path.split('/').filter(|name| !name.is_empty()).map(String::from).collect();
            tree.files.insert(path.clone(), source.path.clone());
            texts.insert(path, source.without_tests());
        }
        for (module, text) in &texts {
            tree.read_module(module, text);
        }
        tree
    }

    fn read_module(&mut self, module: &Path, text: &str) {
        let mut rest = text;
        let mut code = String::new();
        let mut imports = BTreeMap::new();
        let (mut leaves, mut exported) = (Vec::new(), BTreeSet::new());
        while let Some((start, end)) = next_use(rest) {
            let is_export = rest[..start].ends_with([' ', ')']) && !rest[..start].ends_with("  ");
            code.push_str(&rest[..start]);
            let before = leaves.len();
            flatten(&rest[start + "use ".len()..end], &Path::new(), &mut leaves);
            exported.extend(before..if is_export { leaves.len() } else { before });
            rest = &rest[end..];
        }
        code.push_str(rest);
        let used: BTreeSet<&str> = words(&code).collect();
        let mut named = BTreeSet::new();
        for (at, (path, name)) in leaves.into_iter().enumerate() {
            let Some(path) = self.absolute(module, &path) else { continue };
            // A file that passes a name on uses it only where its own code has it, too.
            if !exported.contains(&at) || used.contains(name.as_str()) {
                named.insert(path.clone());
            }
            imports.insert(name, path);
        }
        self.imports.insert(module.clone(), imports);
        for path in inline_paths(&code) {
            let first = &path[0];
            let import = self.imports[module].get(first);
            let path = match import {
                Some(import) => Some(import.iter().chain(&path[1..]).cloned().collect()),
                None => self.absolute(module, &path),
            };
            named.extend(path);
        }
        self.named.insert(module.clone(), named);
    }

    /// A path that `module` names, from the crate's root on; none where it leads out of the crate.
    fn absolute(&self, module: &Path, path: &[String]) -> Option<Path> {
        let mut at = match path.first()?.as_str() {
            "crate" => Path::new(),
            "self" | "super" => module.clone(),
            child => {
                let child: Path = module.iter().cloned().chain([child.to_owned()]).collect();
                self.files.contains_key(&child).then(|| module.clone())?
            }
        };
        for name in path {
            match name.as_str() {
                "crate" | "self" => {}
                "super" => {
                    at.pop()?;
                }
                name => at.push(name.to_owned()),
            }
        }
        Some(at)
    }

    /// The module that defines the name that a path leads to; none where it leads to a module.
    fn defining(&self, path: &[String], depth: usize) -> Option<Path> {
        assert!(depth < 20, "imports of {path:?} go round");
        let mut at = Path::new();
        for (index, name) in path.iter().enumerate() {
            at.push(name.clone());
            if self.files.contains_key(&at) {
                continue;
            }
            at.pop();
            return match self.imports[&at].get(name) {
                Some(import) if import[..] != path[..=index] => {
                    let rest = &path[index + 1..];
                    let path: Path = import.iter().chain(rest).cloned().collect();
                    self.defining(&path, depth + 1)
                }
                _ => Some(at),
            };
        }
        None
    }

    /// The modules that each module takes names from.
    fn arrows(&self) -> BTreeMap<Path, BTreeSet<Path>> {
        let targets = |(module, named): (&Path, &BTreeSet<Path>)| {
            let mut targets: BTreeSet<Path> =
                named.iter().filter_map(|path| self.defining(path, 0)).collect();
            targets.remove(module);
            (module.clone(), targets)
        };
        self.named.iter().map(targets).collect()
    }
}

/// Bounds of the next `use`, up to its semicolon.
fn next_use(code: &str) -> Option<(usize, usize)> {
    let starts = code.match_indices("use ").map(|(at, _)| at);
    let start = starts.into_iter().find(|at| {
        let line = code[..*at].rsplit('\n').next().unwrap().trim();
        line.is_empty() || line == "pub" || (line.starts_with("pub(") && line.ends_with(')'))
    })?;
    Some((start, start + code[start..].find(';')?))
}

/// The paths of a tree of imports, each with the name that it is known by here.
fn flatten(tree: &str, above: &Path, leaves: &mut Vec<(Path, String)>) {
    let tree = tree.trim();
    if let Some((head, list)) = tree.split_once('{') {
        let above: Path = above.iter().cloned().chain(words(head).map(String::from)).collect();
        let list = list.trim_end().strip_suffix('}').unwrap_or_else(|| panic!("{tree}"));
        let (mut depth, mut start) = (0, 0);
        for (at, letter) in list.char_indices().chain([(list.len(), ',')]) {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    flatten(&list[start..at], &above, leaves);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path: Path = above.iter().cloned().chain(words(path).map(String::from)).collect();
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let Some(name) = path.last().cloned() else { return };
    leaves.push((path, if alias.is_empty() { name } else { alias.trim().to_owned() }));
}

/// Paths of two names or more in code.
fn inline_paths(code: &str) -> Vec<Path> {
    let mut paths = Vec::new();
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut end = 0;
    for (at, _) in code.match_indices("::") {
        if at < end {
            continue;
        }
        let before = code[..at].rfind(|letter| !is_word(letter)).map_or(0, |index| index + 1);
        if before == at {
            continue;
        }
        let mut path = vec![code[before..at].to_owned()];
        end = at;
        while let Some(rest) = code[end..].strip_prefix("::") {
            let length = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
            if length == 0 {
                break;
            }
            path.push(rest[..length].to_owned());
            end += 2 + length;
        }
        paths.push(path);
    }
    paths
}

/// Groups of modules that lead to each other.
fn circles(arrows: &BTreeMap<Path, BTreeSet<Path>>) -> Vec<BTreeSet<Path>> {
    let reachable = |from: &Path| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&Path> = arrows[from].iter().collect();
        while let Some(module) = open.pop() {
            if seen.insert(module.clone()) {
                open.extend(&arrows[module]);
            }
        }
        seen
    };
    let reach: BTreeMap<&Path, BTreeSet<Path>> =
        arrows.keys().map(|module| (module, reachable(module))).collect();
    let mut circles: Vec<BTreeSet<Path>> = Vec::new();
    for (module, seen) in &reach {
        if !seen.contains(*module) || circles.iter().any(|circle| circle.contains(*module)) {
            continue;
        }
        circles.push(seen.iter().filter(|to| reach[to].contains(*module)).cloned().collect());
    }
    circles
}

#[test]
fn files_import_each_other_in_no_circle() {
    let mut faults = Vec::new();
    for folder in PATHS {
        let tree = ModuleTree::read(folder);
        assert!(!tree.files.is_empty(), "no file of {folder} was read");
        let arrows = tree.arrows();
        for circle in circles(&arrows) {
            let files: Vec<&str> =
                circle.iter().map(|module| tree.files[module].as_str()).collect();
            faults.push(format!("{} import each other:", files.join(", ")));
            for module in &circle {
                for target in arrows[module].intersection(&circle) {
                    faults.push(format!("    {} -> {}", tree.files[module], tree.files[target]));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn the_reader_of_imports_reads_them() {
    let mut tree = ModuleTree::default();
    let path = |text: &str| -> Path {
        text.split("::").filter(|name| !name.is_empty()).map(String::from).collect()
    };
    let texts = [
        ("", "mod a;\npub use a::b::{self, Name as Other};\n"),
        ("a", "mod b;\nmod c;\nuse c::Third;\n"),
        ("a::b", "use super::c;\nstruct Name;\nfn f() { c::g(); super::Third::new() }\n"),
        ("a::c", "use crate::{Other, a::b};\nfn h() { b::f(); std::fmt::g() }\nstruct Third;\n"),
    ];
    for (module, _) in texts {
        tree.files.insert(path(module), format!("{module}.rs"));
    }
    for (module, text) in texts {
        tree.read_module(&path(module), text);
    }
    let arrows = tree.arrows();
    assert_eq!(arrows[&path("a::b")], BTreeSet::from([path("a::c")]));
    assert_eq!(arrows[&path("a::c")], BTreeSet::from([path("a::b")]));
    let circle = BTreeSet::from([path("a::b"), path("a::c")]);
    assert_eq!(circles(&arrows), [circle]);
}
