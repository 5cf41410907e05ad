//! The source text of the workspace, for the tests of its structure.

use std::path::{Path, PathBuf};

/// One source file.
pub(crate) struct Source {
    /// The path from the root of the workspace.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files below some folders whose names end so, by their paths from the root.
pub(crate) fn files(folders: &[&str], extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in folders {
        let before = found.len();
        collect(&root().join(folder), extension, &mut found);
        assert!(found.len() > before, "{folder} has files .{extension}");
    }
    found.sort();
    found
}

fn collect(folder: &Path, extension: &str, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, extension, into);
        } else if path.extension().is_some_and(|found| found == extension) {
            let path = path.strip_prefix(root()).unwrap();
            into.push(path.components().map(|part| part.as_os_str().to_str().unwrap()).collect::<Vec<_>>().join("/"));
        }
    }
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Rust files below some folders.
pub(crate) fn sources(folders: &[&str]) -> Vec<Source> {
    let parse = |path: String| {
        let text = read(&path);
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        Source { path, text, syntax }
    };
    files(folders, "rs").into_iter().map(parse).collect()
}

/// Whether an item is compiled for tests, models or canaries only.
pub(crate) fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    let has = |attribute: &syn::Attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let text = list.tokens.to_string();
        list.path.is_ident("cfg")
            && text.split([' ', '(', ')', ',']).any(|word| word == "test")
            && !text.contains("not")
    };
    attributes.iter().any(has)
}
