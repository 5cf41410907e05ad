//! Lengths of files and functions, parameters, and calls that are not used.

use std::collections::BTreeMap;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::FOLDERS;
use crate::source::{Source, is_for_tests, sources};

/// The most lines of a file.
const FILE_LINES: usize = 500;

/// The most lines of a function.
const FUNCTION_LINES: usize = 70;

/// The most parameters of a function, without `self`.
const PARAMETERS: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    LongFile,
    LongFunction,
    ManyParameters,
    BoolParameter,
}

struct Shapes<'a> {
    path: &'a str,
    found: &'a mut BTreeMap<Kind, Vec<String>>,
}

impl Shapes<'_> {
    fn note(&mut self, kind: Kind, name: &str, what: usize) {
        self.found.entry(kind).or_default().push(format!("{}: {name}: {what}", self.path));
    }

    fn function(&mut self, signature: &syn::Signature, body: &syn::Block, part_of: Part) {
        let name = signature.ident.to_string();
        let lines = body.span().end().line - signature.span().start().line + 1;
        if lines > FUNCTION_LINES {
            self.note(Kind::LongFunction, &name, lines);
        }
        // A trait says how many parameters there are, and the trait may be another crate's.
        if part_of == Part::Trait {
            return;
        }
        let parameters: Vec<_> = signature.inputs.iter().filter_map(typed).collect();
        if parameters.len() > PARAMETERS {
            self.note(Kind::ManyParameters, &name, parameters.len());
        }
        let flags = parameters.iter().filter(|parameter| is_bool(&parameter.ty)).count();
        // A setter whose only parameter is the value it sets names what the value means.
        if flags > 0 && parameters.len() > 1 {
            self.note(Kind::BoolParameter, &name, flags);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Own,
    Trait,
}

fn typed(argument: &syn::FnArg) -> Option<&syn::PatType> {
    match argument {
        syn::FnArg::Typed(typed) => Some(typed),
        syn::FnArg::Receiver(_) => None,
    }
}

fn is_bool(of: &syn::Type) -> bool {
    matches!(of, syn::Type::Path(path) if path.path.is_ident("bool"))
}

impl Visit<'_> for Shapes<'_> {
    fn visit_item_fn(&mut self, item: &syn::ItemFn) {
        self.function(&item.sig, &item.block, Part::Own);
        visit::visit_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &syn::ItemImpl) {
        let part_of = if item.trait_.is_some() { Part::Trait } else { Part::Own };
        for of in &item.items {
            if let syn::ImplItem::Fn(method) = of {
                self.function(&method.sig, &method.block, part_of);
            }
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_mod(&mut self, item: &syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

#[test]
fn files_and_functions_are_short_and_flags_have_names() {
    let mut found = BTreeMap::new();
    for Source { path, text, syntax } in &sources(FOLDERS) {
        let mut shapes = Shapes { path, found: &mut found };
        shapes.visit_file(syntax);
        let lines = text.lines().count();
        if lines > FILE_LINES {
            shapes.note(Kind::LongFile, "lines", lines);
        }
    }
    let wrong: Vec<_> = found.iter().map(|(kind, of)| format!("{kind:?}:\n  {}", of.join("\n  "))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Calls with a better way: what is banned, where, and what to use instead.
const BANNED: &[(&str, &[&str], &str)] = &[
    ("println!", &["schemas/src", "engine/src", "transport/src", "src"], "a library does not print: use tracing"),
    ("eprintln!", &["schemas/src", "engine/src", "transport/src", "src"], "a library does not print: use tracing"),
    ("process::exit", &["schemas/src", "engine/src", "transport/src", "src"], "return an error"),
    ("todo!", FOLDERS, "write it"),
    ("unimplemented!", FOLDERS, "write it"),
    ("mem::forget", FOLDERS, "hand over the ownership"),
    ("std::sync::Mutex", &["engine/src"], "crate::primitive::Mutex, which loom can run"),
    ("std::env::var", &["schemas/src", "engine/src", "transport/src", "src"], "take it from the caller"),
];

/// Where calls are not looked at: here, in the models that print what loom has tried, and in the random walks of caches, whose
/// number is a setting.
const SPARED: &[&str] = &["tests/tests/tidy/", "engine/src/models.rs", "engine/src/cache/walk/"];

#[test]
fn banned_calls_are_not_used() {
    let mut wrong = Vec::new();
    for source in sources(FOLDERS).iter().filter(|source| !SPARED.iter().any(|spared| source.path.starts_with(spared)))
    {
        for (call, folders, instead) in BANNED {
            let here = folders.iter().any(|folder| source.path.starts_with(&format!("{folder}/")));
            let code = source.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
            let uses = code.filter(|(_, line)| here && line.contains(call));
            wrong.extend(uses.map(|(at, _)| format!("{}:{}: {call}: {instead}", source.path, at + 1)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
