//! Parses the lines of a load, in each format: a key and a number, nothing, or an error.

use std::borrow::Cow;

use clap::ValueEnum;
use ipnet::IpNet;
use tallymesh_schemas::key;
use tallymesh_schemas::visible::quoted;

use crate::commands::load::lines::Line;

/// Formats of what is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadFormat {
    /// KEY or KEY N; empty lines and lines that begin with # are skipped
    Lines,
    /// A heading and fields separated by commas, as --output csv writes them: key or prefix, and count
    Csv,
    /// An access log, common or combined: each line counts one for its first field
    Log,
    /// The answer of HAProxy to `show table NAME`: the key of each entry, and one of its counters
    Haproxy,
}

/// A key and the number to add.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The number of its line, from 1.
    pub(super) number: u64,
    /// The key as the line has it.
    pub(super) key: String,
    /// The number to add.
    pub(super) n: i64,
}

/// The contents of one line; `None` if it has nothing to count.
type Parsed = Option<(String, i64)>;

/// Counters of HAProxy in order of preference: open connections first, then past ones.
const COUNTERS: [&str; 5] = ["conn_cur", "conn_cnt", "sess_cnt", "http_req_cnt", "gpc0"];

/// Reads lines of one format.
#[derive(Debug)]
pub(super) struct Reader {
    /// `None` until the first line shows whether it is the heading of a table or a key.
    format: Option<LoadFormat>,
    /// The chosen counter of HAProxy.
    counter: Option<String>,
    columns: Option<Columns>,
    /// Of a tree: the blocks that may contain the next line's block.
    tree: Tree,
}

/// The positions of a table's columns.
#[derive(Debug, Clone, Copy)]
struct Columns {
    key: usize,
    count: usize,
    all: usize,
    /// The keys are blocks, and the count of a block includes everything in it.
    tree: bool,
}

impl Reader {
    pub(super) fn new(format: Option<LoadFormat>, counter: Option<String>) -> Self {
        Self { format, counter, columns: None, tree: Tree::default() }
    }

    /// Adds the contents of a line to `entries`. Of a tree, a block's own count is known when everything in it has been read.
    ///
    /// # Errors
    /// What is wrong with the line, and how to correct it.
    pub(super) fn read(&mut self, line: &Line<'_>, entries: &mut Vec<Entry>) -> Result<(), String> {
        let Some((key, n)) = self.parse(line)? else { return Ok(()) };
        let number = line.number;
        if self.columns.is_some_and(|columns| columns.tree) {
            let net = key::parse_net(&key).map_err(|error| error.to_string())?;
            self.tree.push(Block { net, entry: Entry { number, key, n }, below: 0 }, entries);
        } else {
            entries.push(Entry { number, key, n });
        }
        Ok(())
    }

    /// Adds the remaining entries at the end.
    pub(super) fn end(&mut self, entries: &mut Vec<Entry>) {
        self.tree.close(0, entries);
    }

    fn parse(&mut self, line: &Line<'_>) -> Result<Parsed, String> {
        let format = *self.format.get_or_insert_with(|| match std::str::from_utf8(line.text) {
            Ok("key,count" | "prefix,count") => LoadFormat::Csv,
            _ => LoadFormat::Lines,
        });
        match format {
            LoadFormat::Log => return log(line),
            _ if line.cut => return Err(format!("it is too long: write {}", how(format))),
            _ => {}
        }
        let text = std::str::from_utf8(line.text).map_err(|_| format!("it is not UTF-8: write {}", how(format)))?;
        match format {
            LoadFormat::Lines | LoadFormat::Log => lines(text),
            LoadFormat::Csv => self.csv(text),
            LoadFormat::Haproxy => haproxy(text, self.counter.as_deref()),
        }
    }

    fn csv(&mut self, text: &str) -> Result<Parsed, String> {
        let fields = fields(text)?;
        let Some(columns) = self.columns else {
            let find = |name: &str| fields.iter().position(|field| field.trim() == name);
            let (key, prefix) = (find("key"), find("prefix"));
            let (Some(at), Some(count)) = (key.or(prefix), find("count")) else {
                return Err(format!(
                    "the heading is \"{}\": it has to name the columns key (or prefix) and count",
                    quoted(text)
                ));
            };
            self.columns = Some(Columns { key: at, count, all: fields.len(), tree: key.is_none() });
            return Ok(None);
        };
        if fields.len() != columns.all {
            return Err(format!("it has {} fields, and the heading has {}", fields.len(), columns.all));
        }
        let field = |at: usize| fields.get(at).map(Cow::as_ref).unwrap_or_default();
        let n = number(field(columns.count).trim(), LoadFormat::Csv)?;
        Ok(Some((field(columns.key).to_owned(), n)))
    }

    /// Whether no further line can be read after a bad one.
    pub(super) fn is_lost(&self) -> bool {
        self.format == Some(LoadFormat::Csv) && self.columns.is_none()
    }
}

/// The nested blocks that are still open, the widest first: at most one of each prefix length.
#[derive(Debug, Default)]
struct Tree(Vec<Block>);

/// A block with the count of everything in it.
#[derive(Debug)]
struct Block {
    net: IpNet,
    entry: Entry,
    /// The sum of the blocks directly in it.
    below: i64,
}

impl Tree {
    fn push(&mut self, block: Block, entries: &mut Vec<Entry>) {
        let around = |open: &Block| open.net != block.net && open.net.contains(&block.net);
        let depth = self.0.iter().rposition(around).map_or(0, |at| at + 1);
        self.close(depth, entries);
        if let Some(open) = self.0.last_mut() {
            open.below = open.below.saturating_add(block.entry.n);
        }
        self.0.push(block);
    }

    /// Closes all blocks from a depth on: they contain nothing more. Their own counts become entries.
    fn close(&mut self, depth: usize, entries: &mut Vec<Entry>) {
        for Block { entry, below, .. } in self.0.drain(depth..) {
            let n = entry.n.saturating_sub(below);
            if n != 0 {
                entries.push(Entry { n, ..entry });
            }
        }
    }
}

fn how(format: LoadFormat) -> &'static str {
    match format {
        LoadFormat::Lines => "KEY or KEY N",
        LoadFormat::Csv => "fields separated by commas, as in the heading",
        LoadFormat::Log => "an address, a blank, and the rest of the line",
        LoadFormat::Haproxy => "the answer of HAProxy to show table NAME",
    }
}

fn number(text: &str, format: LoadFormat) -> Result<i64, String> {
    text.parse().map_err(|_| format!("\"{}\" is not a whole number: write {}", quoted(text), how(format)))
}

fn lines(text: &str) -> Result<Parsed, String> {
    if text.starts_with('#') {
        return Ok(None);
    }
    let mut words = text.split_whitespace();
    let key = words.next().unwrap_or_default();
    let n = words.next().map_or(Ok(1), |n| number(n, LoadFormat::Lines))?;
    match words.next() {
        None => Ok(Some((key.to_owned(), n))),
        Some(more) => Err(format!("\"{}\" is one word too many: write KEY or KEY N", quoted(more))),
    }
}

/// Counts one for the first field, and ignores the rest.
fn log(line: &Line<'_>) -> Result<Parsed, String> {
    let end = line.text.iter().position(u8::is_ascii_whitespace);
    let first = match end {
        Some(end) => line.text.get(..end).unwrap_or_default(),
        None if line.cut => return Err(format!("its first field is too long: write {}", how(LoadFormat::Log))),
        None => line.text,
    };
    let first = std::str::from_utf8(first).map_err(|_| "its first field is not UTF-8".to_owned())?;
    Ok(Some((first.to_owned(), 1)))
}

/// `0x55d…: key=192.0.2.7 use=0 exp=9000 conn_cnt=7 conn_cur=2`, and headings that begin with `#`.
fn haproxy(text: &str, counter: Option<&str>) -> Result<Parsed, String> {
    if text.starts_with('#') {
        return Ok(None);
    }
    let wrong = || format!("it is no entry of a table: write {}", how(LoadFormat::Haproxy));
    let (_, rest) = text.split_once("key=").ok_or_else(wrong)?;
    // A key may have blanks in it; `use` follows it in all versions.
    let (key, rest) = rest.split_once(" use=").ok_or_else(wrong)?;
    let value = |name: &str| {
        // A rate has its period behind its name: conn_rate(30000)=3.
        let named = rest.split_whitespace().filter_map(|field| field.split_once('='));
        let found = named.into_iter().find(|(field, _)| field.split('(').next() == Some(name));
        found.map(|(_, value)| value)
    };
    let found = match counter {
        Some(name) => value(name).ok_or_else(|| format!("it has no counter \"{}\"", quoted(name)))?,
        None => COUNTERS.into_iter().find_map(value).ok_or_else(|| {
            format!("it has none of the counters {}: name another one with --counter", COUNTERS.join(", "))
        })?,
    };
    match number(found, LoadFormat::Haproxy)? {
        0 => Ok(None),
        n => Ok(Some((key.to_owned(), n))),
    }
}

/// The fields of a line of CSV (RFC 4180). A field cannot contain a line end.
fn fields(text: &str) -> Result<Vec<Cow<'_, str>>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (Cow::Borrowed(&rest[..end]), &rest[end..])
            }
            Some(inner) => {
                let (mut field, mut inner) = (String::new(), inner);
                loop {
                    let (before, after) = inner.split_once('"').ok_or("a quote is not closed")?;
                    field.push_str(before);
                    match after.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            inner = more;
                        }
                        None => break (Cow::Owned(field), after),
                    }
                }
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(fields),
            None => return Err("something follows a closing quote".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Option<LoadFormat>, texts: &[&str]) -> Vec<Result<Parsed, String>> {
        let mut reader = Reader::new(format, None);
        let line = |text: &str| reader.parse(&Line { number: 1, text: text.as_bytes(), cut: false });
        texts.iter().copied().map(line).collect()
    }

    fn entry(key: &str, n: i64) -> Result<Parsed, String> {
        Ok(Some((key.to_owned(), n)))
    }

    /// Entries of a table of blocks, with the numbers of their lines.
    fn tree(texts: &[&str]) -> Vec<(u64, String, i64)> {
        let (mut reader, mut entries) = (Reader::new(None, None), Vec::new());
        for (number, text) in (1..).zip(texts) {
            reader.read(&Line { number, text: text.as_bytes(), cut: false }, &mut entries).unwrap();
        }
        reader.end(&mut entries);
        entries.sort_by_key(|entry| entry.number);
        entries.into_iter().map(|Entry { number, key, n }| (number, key, n)).collect()
    }

    /// A listing has blocks without counts of their own: those at which it branches.
    #[test]
    fn a_block_counts_its_total_without_the_blocks_in_it() {
        let texts = [
            "prefix,count",
            "10.0.0.0/8,10",
            "10.0.0.0/24,9",
            "10.0.0.1/32,4",
            "10.0.0.2/32,5",
            "10.9.0.0/16,-2",
            "::/0,3",
            "::1/128,3",
        ];
        let expected = [
            (2, "10.0.0.0/8", 3),
            (4, "10.0.0.1/32", 4),
            (5, "10.0.0.2/32", 5),
            (6, "10.9.0.0/16", -2),
            (8, "::1/128", 3),
        ];
        assert_eq!(tree(&texts), expected.map(|(number, key, n)| (number, key.to_owned(), n)));
        // In a table with keys each line counts by itself, and so do blocks that occur twice.
        assert_eq!(tree(&["key,count", "10.0.0.0/8,7", "10.0.0.1,4"]).len(), 2);
        let twice = tree(&["prefix,count", "10.0.0.0/8,7", "10.0.0.0/8,4"]);
        assert_eq!(twice.iter().map(|entry| entry.2).collect::<Vec<_>>(), [7, 4]);
    }

    #[test]
    fn keys_and_numbers() {
        let parsed = read(None, &["10.0.0.1", "# a comment", "10.0.0.2\t-3", "10.0.0.3 +4", "key,count"]);
        let expected = [entry("10.0.0.1", 1), Ok(None), entry("10.0.0.2", -3), entry("10.0.0.3", 4)];
        assert_eq!(parsed[..4], expected);
        assert_eq!(parsed[4], entry("key,count", 1), "only the first line may be a heading");
        for bad in ["b x", "c 1 2", "d 99999999999999999999"] {
            assert!(read(None, &[bad])[0].is_err(), "{bad}");
        }
    }

    #[test]
    fn tables_as_they_are_written() {
        let parsed = read(None, &["prefix,count", "10.0.0.0/8,7", "192.0.2.7,-2"]);
        assert_eq!(parsed, [Ok(None), entry("10.0.0.0/8", 7), entry("192.0.2.7", -2)]);
        let parsed = read(
            Some(LoadFormat::Csv),
            &["count,node,key", "3,n1,\"say \"\"a,b\"\"\"", "4,n1", "5,n1,\"x", "6,n1,\"x\"y"],
        );
        assert_eq!(parsed[..2], [Ok(None), entry("say \"a,b\"", 3)]);
        assert_eq!(parsed[2], Err("it has 2 fields, and the heading has 3".to_owned()));
        assert!(parsed[3].as_ref().is_err_and(|why| why.contains("not closed")));
        assert!(parsed[4].as_ref().is_err_and(|why| why.contains("closing quote")));
        let parsed = read(Some(LoadFormat::Csv), &["10.0.0.0/8,7"]);
        assert!(parsed[0].as_ref().is_err_and(|why| why.contains("it has to name the columns")), "{parsed:?}");
    }

    #[test]
    fn access_logs() {
        let parsed = read(
            Some(LoadFormat::Log),
            &[
                r#"192.0.2.7 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 2326"#,
                r#"2001:db8::1 - ada [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 5 "https://example.com" "curl""#,
            ],
        );
        assert_eq!(parsed, [entry("192.0.2.7", 1), entry("2001:db8::1", 1)]);
        let mut reader = Reader::new(Some(LoadFormat::Log), None);
        let long = Line { number: 1, text: b"192.0.2.7 - - [10/Oct/2026", cut: true };
        assert_eq!(reader.parse(&long), entry("192.0.2.7", 1), "only the first field has to be there");
        assert!(reader.parse(&Line { number: 2, text: b"xxxxxxxx", cut: true }).is_err());
    }

    #[test]
    fn tables_of_haproxy() {
        let texts = [
            "# table: per_ip, type: ip, size:1048576, used:4",
            "0x55d1: key=192.0.2.7 use=0 exp=9000 gpc0=0 conn_cnt=7 conn_cur=2",
            "0x55d2: key=192.0.2.8 use=0 exp=9000 shard=0 conn_rate(30000)=1 conn_cnt=7",
            "0x55d3: key=192.0.2.9 use=0 exp=9000 conn_cur=0",
            "0x55d4: key=192.0.2.9 use=0 exp=9000 bytes_out_rate(60000)=187",
            "nonsense",
        ];
        let parsed = read(Some(LoadFormat::Haproxy), &texts);
        assert_eq!(parsed[..4], [Ok(None), entry("192.0.2.7", 2), entry("192.0.2.8", 7), Ok(None)]);
        assert!(parsed[4].as_ref().is_err_and(|why| why.contains("--counter")) && parsed[5].is_err());
        let mut reader = Reader::new(Some(LoadFormat::Haproxy), Some("conn_rate".to_owned()));
        let line = |text: &'static str| Line { number: 1, text: text.as_bytes(), cut: false };
        assert_eq!(reader.parse(&line(texts[2])), entry("192.0.2.8", 1));
        assert!(reader.parse(&line(texts[1])).is_err());
    }
}
