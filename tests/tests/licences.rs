//! Every package that the workspace can be built with has a licence that deny.toml allows. deny.toml has the only list:
//! cargo-deny reads the same lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// What deny.toml allows.
#[derive(Debug, Default)]
struct Allowed {
    /// Licences that any package may have.
    everywhere: BTreeSet<String>,
    /// Licences that one package may have besides.
    exceptions: BTreeMap<String, BTreeSet<String>>,
}

impl Allowed {
    /// Reads the section `[licenses]`, written as it is in deny.toml: one licence or one exception a line.
    fn read(text: &str) -> Self {
        let mut allowed = Self::default();
        let (mut section, mut list) = ("", "");
        for line in text.lines().map(|line| line.split('#').next().unwrap_or("").trim()) {
            if line.starts_with('[') && line.ends_with(']') {
                (section, list) = (line, "");
            } else if let Some(name) = line.strip_suffix("= [") {
                list = name.trim();
            } else if line == "]" {
                list = "";
            } else if section == "[licenses]" {
                let mut names = quoted(line);
                match list {
                    "allow" => allowed.everywhere.extend(names),
                    "exceptions" => {
                        if let Some(package) = names.next() {
                            allowed.exceptions.entry(package).or_default().extend(names);
                        }
                    }
                    _ => {}
                }
            }
        }
        allowed
    }

    /// Whether a package may have this licence.
    fn has(&self, package: &str, licence: &str) -> bool {
        self.everywhere.contains(licence) || self.exceptions.get(package).is_some_and(|of| of.contains(licence))
    }
}

/// The texts between quotation marks.
fn quoted(line: &str) -> impl Iterator<Item = String> {
    line.split('"').skip(1).step_by(2).map(str::to_owned)
}

/// The words of a licence expression. Older packages write `/` where SPDX has `OR`.
fn words(expression: &str) -> Vec<String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// The licences that an expression names, those with an exception as `LICENCE WITH EXCEPTION`.
fn licences(words: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    satisfied(words, &mut |licence| {
        found.insert(licence.to_owned());
        false
    });
    found
}

/// Whether an SPDX expression holds when the licences hold for which `may` says so. Asks for every licence once.
/// `None` for what is no expression.
fn satisfied(words: &[String], may: &mut impl FnMut(&str) -> bool) -> Option<bool> {
    let mut rest = words;
    let holds = either(&mut rest, may)?;
    rest.is_empty().then_some(holds)
}

/// `A OR B`: binds weaker than `AND`.
fn either(rest: &mut &[String], may: &mut impl FnMut(&str) -> bool) -> Option<bool> {
    let mut holds = both(rest, may)?;
    while take(rest, "OR") {
        holds |= both(rest, may)?;
    }
    Some(holds)
}

/// `A AND B`.
fn both(rest: &mut &[String], may: &mut impl FnMut(&str) -> bool) -> Option<bool> {
    let mut holds = one(rest, may)?;
    while take(rest, "AND") {
        holds &= one(rest, may)?;
    }
    Some(holds)
}

/// One licence, with its exception if it has one, or an expression in brackets.
fn one(rest: &mut &[String], may: &mut impl FnMut(&str) -> bool) -> Option<bool> {
    if take(rest, "(") {
        let holds = either(rest, may)?;
        return take(rest, ")").then_some(holds);
    }
    let licence = next(rest)?;
    if !take(rest, "WITH") {
        return Some(may(licence));
    }
    let exception = next(rest)?;
    Some(may(&format!("{licence} WITH {exception}")))
}

/// Takes the first word if it is this one.
fn take(rest: &mut &[String], word: &str) -> bool {
    let found = rest.first().is_some_and(|first| first == word);
    if found {
        *rest = &rest[1..];
    }
    found
}

/// Takes a word that is no operator.
fn next<'a>(rest: &mut &'a [String]) -> Option<&'a str> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    (!["OR", "AND", "WITH", "(", ")"].contains(&first.as_str())).then_some(first.as_str())
}

fn cargo_metadata(root: &Path, more: &[&str]) -> Output {
    let arguments = ["metadata", "--format-version=1", "--all-features", "--locked"];
    Command::new(env!("CARGO")).args(arguments).args(more).current_dir(root).output().unwrap()
}

/// Name, version and licence expression of every package in Cargo.lock, whatever the platform.
fn packages(root: &Path) -> Vec<(String, String, String)> {
    // A build fetches what its own platform needs; this asks for all packages, so some may have to be fetched.
    let mut output = cargo_metadata(root, &["--offline"]);
    if !output.status.success() {
        output = cargo_metadata(root, &[]);
    }
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "run `cargo fetch --locked` once, with a network: {error}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.map(|package| (text(&package["name"]), text(&package["version"]), text(&package["license"]))).collect()
}

#[test]
fn every_package_has_an_allowed_licence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let allowed = Allowed::read(&std::fs::read_to_string(root.join("deny.toml")).unwrap());
    assert!(allowed.has("tallymesh", "MIT"), "deny.toml was read: {allowed:?}");
    let packages = packages(root);
    assert!(packages.len() > 100, "{} packages were looked at", packages.len());

    let (mut wrong, mut needed) = (Vec::new(), BTreeSet::new());
    for (name, version, expression) in &packages {
        let words = words(expression);
        if satisfied(&words, &mut |licence| allowed.has(name, licence)) != Some(true) {
            wrong.push(format!("{name} {version}: \"{expression}\""));
        }
        needed.extend(licences(&words).into_iter().map(|licence| (name.as_str(), licence)));
    }
    assert!(wrong.is_empty(), "licences that deny.toml does not allow:\n{}", wrong.join("\n"));

    for licence in &allowed.everywhere {
        let used = needed.iter().any(|(_, needed)| needed == licence);
        assert!(used, "no package has {licence}: remove it from deny.toml");
    }
    for (package, licences) in &allowed.exceptions {
        for licence in licences {
            let used = needed.contains(&(package.as_str(), licence.clone()));
            assert!(used, "{package} has no {licence}, or is not used: remove the exception from deny.toml");
        }
    }
}

#[test]
fn expressions_are_read_as_spdx_says() {
    let mit_and_isc =
        |expression: &str| satisfied(&words(expression), &mut |licence| ["MIT", "ISC"].contains(&licence));
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "Apache-2.0 / MIT",
        "MIT AND ISC",
        "(GPL-3.0 OR MIT) AND ISC",
        "GPL-3.0 AND BSD-3-Clause OR MIT",
        "MIT OR GPL-3.0 AND BSD-3-Clause",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
    ] {
        assert_eq!(mit_and_isc(good), Some(true), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "MIT WITH Classpath-exception-2.0", "(MIT OR ISC) AND GPL-3.0"] {
        assert_eq!(mit_and_isc(bad), Some(false), "{bad}");
    }
    for none in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT ISC", "MIT WITH", "()"] {
        assert_eq!(mit_and_isc(none), None, "{none}");
    }
    let named = licences(&words("(MIT OR Apache-2.0 WITH LLVM-exception) AND ISC"));
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["Apache-2.0 WITH LLVM-exception", "ISC", "MIT"]);
}

#[test]
fn lists_are_read_as_they_are_written() {
    let text = "[graph]\nallow = [\n    \"GPL-3.0\",\n]\n[licenses]\n# \"ISC\"\nallow = [\n    \"MIT\", # \"BSD\"\n]\n\
                exceptions = [\n    { crate = \"foca\", allow = [\"MPL-2.0\"] },\n]\nother = \"Zlib\"\n[bans]\nskip = [\n    \"X\",\n]\n";
    let allowed = Allowed::read(text);
    assert_eq!(allowed.everywhere.iter().collect::<Vec<_>>(), ["MIT"]);
    assert!(allowed.has("foca", "MPL-2.0") && allowed.has("foca", "MIT") && allowed.has("other", "MIT"));
    assert!(!allowed.has("other", "MPL-2.0") && !allowed.has("foca", "ISC"));
}
