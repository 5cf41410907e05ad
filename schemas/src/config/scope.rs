//! The keys and blocks of one block. The reader takes each of them once; the rest is unknown and reported.

use hcl::edit::Span;
use hcl::edit::structure::{Attribute, Block, Body};

use crate::config::report::{Report, quoted};
use crate::config::suggest::{did_you_mean, nearest};
use crate::config::value::Setting;

/// The keys and blocks of one block that nothing has read yet.
pub(super) struct Scope<'a> {
    /// Its title in messages: `Replicate "inbound_cidr"`.
    title: String,
    at: usize,
    keys: Vec<&'a Attribute>,
    blocks: Vec<&'a Block>,
    known_keys: Vec<&'static str>,
    known_blocks: Vec<&'static str>,
}

impl<'a> Scope<'a> {
    /// The file itself.
    pub(super) fn file(body: &'a Body) -> Self {
        Self::new("the file".to_owned(), 0, body)
    }

    /// A block.
    pub(super) fn block(title: String, block: &'a Block) -> Self {
        Self::new(title, block_at(block), &block.body)
    }

    fn new(title: String, at: usize, body: &'a Body) -> Self {
        let (keys, blocks) = (body.attributes().collect(), body.blocks().collect());
        Self { title, at, keys, blocks, known_keys: Vec::new(), known_blocks: Vec::new() }
    }

    /// Takes a key, if the block has it.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Setting<'a>> {
        self.known_keys.push(key);
        let index = self.keys.iter().position(|attribute| attribute.has_key(key))?;
        Some(Setting::of(self.keys.swap_remove(index)))
    }

    /// Takes a required key. `example` shows a valid value.
    pub(super) fn require(&mut self, key: &'static str, report: &mut Report<'_>, example: &str) -> Option<Setting<'a>> {
        let setting = self.take(key);
        if setting.is_none() {
            report.add(
                self.at,
                format!("{} has no \"{key}\"", self.title),
                format!("add a line to it: {key} = {example}"),
            );
        }
        setting
    }

    /// Reports that a required block is missing here.
    pub(super) fn missing_block(&self, report: &mut Report<'_>, name: &str, help: &str) {
        report.add(self.at, format!("{} has no {name} block", self.title), help);
    }

    /// Takes all blocks of a name.
    pub(super) fn take_blocks(&mut self, name: &'static str) -> Vec<&'a Block> {
        self.known_blocks.push(name);
        let (taken, left) = self.blocks.iter().partition(|block| block.has_ident(name));
        self.blocks = left;
        taken
    }

    /// Takes the block of a name that may occur once; `reason` says what to do with a second one.
    pub(super) fn take_block(
        &mut self,
        name: &'static str,
        report: &mut Report<'_>,
        reason: &str,
    ) -> Option<&'a Block> {
        let mut blocks = self.take_blocks(name).into_iter();
        let first = blocks.next()?;
        for second in blocks {
            let line = report.line(block_at(first));
            report.add(block_at(second), format!("a second {name} block, the first is on line {line}"), reason);
        }
        Some(first)
    }

    /// Reports the keys and blocks that remain. `what` introduces the list of known ones.
    pub(super) fn finish(self, report: &mut Report<'_>, what: &str) {
        let all: Vec<_> = self.known_keys.iter().chain(&self.known_blocks).copied().collect();
        for attribute in &self.keys {
            let (setting, key) = (Setting::of(attribute), attribute.key.as_str());
            let help = match self.known_blocks.iter().find(|block| **block == key) {
                Some(block) => format!("{block} is a block: write it without =, as in {block} {{ … }}"),
                None => did_you_mean(key, &all, what),
            };
            report.add(setting.key_at, format!("unknown key {} in {}", quoted(key), self.title), help);
        }
        for block in &self.blocks {
            let name = block.ident.as_str();
            let help = match self.known_keys.iter().find(|key| **key == name) {
                Some(key) => format!("{key} is a key: write {key} = …"),
                None if nearest(name, &self.known_blocks).is_none() && name == "Replicate" => {
                    "Replicate stands in a cluster block: cluster { … }".to_owned()
                }
                None => did_you_mean(name, &all, what),
            };
            report.add(block_at(block), format!("unknown block {} in {}", quoted(name), self.title), help);
        }
    }
}

/// The position where a block begins.
pub(super) fn block_at(block: &Block) -> usize {
    block.ident.span().map_or(0, |span| span.start)
}

/// The one required label of the block, and its position.
pub(super) fn label<'a>(block: &'a Block, report: &mut Report<'_>, example: &str) -> Option<(&'a str, usize)> {
    let at = |label: &hcl::edit::structure::BlockLabel| label.span().map_or(block_at(block), |span| span.start);
    let kind = block.ident.as_str();
    match block.labels.as_slice() {
        [one] => Some((one.as_str(), at(one))),
        [] => {
            report.add(
                block_at(block),
                format!("{kind} has no name"),
                format!("name it, as in {kind} \"{example}\" {{}}"),
            );
            None
        }
        [_, second, ..] => {
            report.add(at(second), format!("{kind} has more than one name"), "keep one of them");
            None
        }
    }
}

/// Reports the label of a block that must have none.
pub(super) fn no_label(block: &Block, report: &mut Report<'_>) {
    if let Some(label) = block.labels.first() {
        let kind = block.ident.as_str();
        let at = label.span().map_or(block_at(block), |span| span.start);
        report.add(at, format!("{kind} has no name of its own"), format!("write {kind} {{ … }}"));
    }
}
