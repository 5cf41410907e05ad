//! Which file of a crate uses which: from its `use` declarations and paths, through re-exports, to the file that defines the
//! item.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::source::{Source, is_for_tests, sources};

/// A module, by its path in the crate. The root is empty.
pub(crate) type Module = Vec<String>;

/// The uses of a crate: each module with those that it uses.
pub(crate) type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// What one file says.
#[derive(Default)]
struct Uses {
    /// Paths that it uses, as written.
    paths: Vec<Vec<String>>,
    /// Names that it hands on, with the paths behind them.
    exports: BTreeMap<String, Vec<String>>,
    /// How deep the visit is in modules inside the file.
    inside: usize,
}

impl Uses {
    /// A path as the module of the file would write it.
    fn of_file(&self, path: Vec<String>) -> Vec<String> {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let inner = ups.min(self.inside);
        if inner == 0 {
            path
        } else if inner < ups {
            path[inner..].to_vec()
        } else {
            [&["self".to_owned()], &path[inner..]].concat()
        }
    }
}

impl Visit<'_> for Uses {
    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        let mut found = Vec::new();
        expand(&item.tree, &mut Vec::new(), &mut found);
        for (path, name) in found {
            let path = self.of_file(path);
            if matches!(item.vis, syn::Visibility::Inherited) {
                self.paths.push(path);
            } else {
                self.exports.insert(name, path);
            }
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            self.paths.push(self.of_file(names));
        }
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            self.inside += 1;
            visit::visit_item_mod(self, item);
            self.inside -= 1;
        }
    }

    fn visit_item_impl(&mut self, item: &syn::ItemImpl) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }
}

fn expand(tree: &syn::UseTree, before: &mut Vec<String>, into: &mut Vec<(Vec<String>, String)>) {
    let mut add = |last: &syn::Ident, name: &syn::Ident| {
        let mut path = before.clone();
        if last != "self" {
            path.push(last.to_string());
        }
        into.push((path, name.to_string()));
    };
    match tree {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            expand(&path.tree, before, into);
            before.pop();
        }
        syn::UseTree::Name(name) => add(&name.ident, &name.ident),
        syn::UseTree::Rename(rename) => add(&rename.ident, &rename.rename),
        syn::UseTree::Glob(_) => into.push((before.clone(), "*".to_owned())),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| expand(tree, before, into)),
    }
}

fn module_of(source: &Source, folder: &str) -> Module {
    let path = source.path.strip_prefix(folder).unwrap().trim_start_matches('/').trim_end_matches(".rs");
    let mut module: Module = path.split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

struct Crate {
    files: BTreeMap<Module, Uses>,
}

impl Crate {
    /// The path of an item from the crate's root; `None` for an item of another crate.
    fn absolute(&self, from: &Module, path: &[String]) -> Option<Vec<String>> {
        let mut at = from.clone();
        let rest = match path.first()?.as_str() {
            "crate" => return Some(path[1..].to_vec()),
            "self" => &path[1..],
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                at.truncate(at.len().saturating_sub(ups));
                &path[ups..]
            }
            child => {
                let child = [from.as_slice(), &[child.to_owned()]].concat();
                return self.files.contains_key(&child).then(|| [from.as_slice(), path].concat());
            }
        };
        Some([at.as_slice(), rest].concat())
    }

    /// The file that defines an item.
    fn definition(&self, path: &[String], depth: usize) -> Option<Module> {
        let len = (0..=path.len()).rev().find(|len| self.files.contains_key(&path[..*len]))?;
        let (module, rest) = path.split_at(len);
        let export = rest.first().and_then(|name| self.files[module].exports.get(name));
        if let Some(export) = export.filter(|_| depth < 8)
            && let Some(absolute) = self.absolute(&module.to_vec(), export)
            && absolute != path
        {
            return self.definition(&absolute, depth + 1);
        }
        Some(module.to_vec())
    }
}

/// The graph of a crate whose sources are in `folder`.
pub(crate) fn graph(folder: &str) -> Graph {
    let mut files = BTreeMap::new();
    for source in sources(&[folder]) {
        let module = module_of(&source, folder);
        // A module of tests may use what is above its parent.
        if module.iter().any(|name| name == "tests") {
            continue;
        }
        let mut uses = Uses::default();
        uses.visit_file(&source.syntax);
        files.insert(module, uses);
    }
    let of = Crate { files };
    let mut graph = Graph::new();
    for (module, uses) in &of.files {
        let used = uses.paths.iter().filter_map(|path| of.definition(&of.absolute(module, path)?, 0));
        graph.insert(module.clone(), used.filter(|used| used != module).collect());
    }
    graph
}

/// The circles: sets of modules that use each other.
pub(crate) fn circles(graph: &Graph) -> Vec<BTreeSet<Module>> {
    let reach = |from: &Module| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            open.extend(graph[module].iter().filter(|used| seen.insert((*used).clone())));
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> = graph.keys().map(|module| (module, reach(module))).collect();
    let mut found: Vec<BTreeSet<Module>> = Vec::new();
    for (module, reaches) in &reached {
        if reaches.contains(*module) && !found.iter().any(|circle| circle.contains(*module)) {
            found.push(reaches.iter().filter(|other| reached[other].contains(*module)).cloned().collect());
        }
    }
    found
}
