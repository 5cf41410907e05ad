//! Faults, and the small language for scripts of faults.
//!
//! ```text
//! at 2s cut a,b from c; at 3s lose 20%; at 5s heal
//! ```
//! A script is a list of steps, separated by `;` or line ends; `#` begins a comment. Each step is `at TIME FAULT`, with a time
//! like `250ms`, `2s` or `1.5s`. [`Fault`] lists the faults in their written form. Nodes are named by their labels: the node's
//! name, and `b'` for the twin of `b`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tallymesh_engine::Time;

/// A fault, or the end of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `cut a,b from c`: nothing passes between the two sides; an empty right side (`cut a from rest`) means all other nodes.
    Cut(Vec<String>, Vec<String>),
    /// `cut a to c`: messages from the left side do not arrive at the right side; the other direction works.
    CutOneWay(Vec<String>, Vec<String>),
    /// `heal`: all cuts end, stopped nodes continue, slow ones are quick, disks have room, no message is lost or spoilt any
    /// more.
    Heal,
    /// `crash a`: its process ends without a goodbye.
    Crash(Vec<String>),
    /// `restart a`: a new process without state, in a new incarnation from its wall clock.
    Restart(Vec<String>),
    /// `reuse a`: a new process without state, in the incarnation that the last one began with.
    Reuse(Vec<String>),
    /// `twin a`: another process under the same name, in its own incarnation; its label is `a'`.
    Twin(Vec<String>),
    /// `leave a`: it says goodbye and ends.
    Leave(Vec<String>),
    /// `stop a`: its process is stopped and loses nothing.
    Stop(Vec<String>),
    /// `resume a`: it continues.
    Resume(Vec<String>),
    /// `slow a`: its links have room for one message at a time, and each takes long.
    Slow(Vec<String>),
    /// `forget a at b`: an operator forgets a on b.
    Forget(String, String),
    /// `lie a dead b`: a sends a false statement about b to all others, and to b; see [`Lie`].
    Lie(String, Lie, String),
    /// `renew a`: it renews by command.
    Renew(Vec<String>),
    /// `reload a`: its process ends, and another one begins with its whole memory, in a new incarnation.
    Reload(Vec<String>),
    /// `restore a 3s`: its process ends, and another one begins with the memory of that time ago, in a new incarnation.
    Restore(String, Duration),
    /// `reboot a`: a new process with the saved state of the last one. If nodes save nothing, a new process without state.
    Reboot(Vec<String>),
    /// `rewind a 3s`: a new process with the saved state of that time ago.
    Rewind(String, Duration),
    /// `full a`: its disk accepts nothing any more.
    Full(Vec<String>),
    /// `jump a 30s`: both of its clocks jump ahead.
    Jump(String, Duration),
    /// `set a -30s`: its wall clock is set by this offset, in milliseconds.
    Set(String, i64),
    /// `lose 10%`: the share of lost messages, in 1/10,000.
    Lose(u32),
    /// `double 5%`: these arrive twice.
    Double(u32),
    /// `reorder 5%`: these are delayed and overtaken.
    Reorder(u32),
    /// `truncate 1%`: these arrive truncated.
    Truncate(u32),
    /// `corrupt 1%`: bits of these change.
    Corrupt(u32),
}

impl Fault {
    /// The kind of fault, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cut(..) => "cut",
            Self::CutOneWay(..) => "cut one way",
            Self::Heal => "heal",
            Self::Crash(_) => "crash",
            Self::Restart(_) => "restart",
            Self::Reuse(_) => "reuse",
            Self::Twin(_) => "twin",
            Self::Leave(_) => "leave",
            Self::Stop(_) => "stop",
            Self::Resume(_) => "resume",
            Self::Slow(_) => "slow",
            Self::Forget(..) => "forget",
            Self::Lie(..) => "lie",
            Self::Renew(_) => "renew",
            Self::Reload(_) => "reload",
            Self::Restore(..) => "restore",
            Self::Reboot(_) => "reboot",
            Self::Rewind(..) => "rewind",
            Self::Full(_) => "full",
            Self::Jump(..) => "jump",
            Self::Set(..) => "set",
            Self::Lose(_) => "lose",
            Self::Double(_) => "double",
            Self::Reorder(_) => "reorder",
            Self::Truncate(_) => "truncate",
            Self::Corrupt(_) => "corrupt",
        }
    }
}

impl Fault {
    /// The nodes that it names.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Cut(a, b) | Self::CutOneWay(a, b) => a.iter().chain(b).map(String::as_str).collect(),
            Self::Crash(names)
            | Self::Restart(names)
            | Self::Reuse(names)
            | Self::Twin(names)
            | Self::Leave(names)
            | Self::Stop(names)
            | Self::Resume(names)
            | Self::Slow(names)
            | Self::Renew(names)
            | Self::Reload(names)
            | Self::Reboot(names)
            | Self::Full(names) => names.iter().map(String::as_str).collect(),
            Self::Forget(a, b) | Self::Lie(a, _, b) => vec![a, b],
            Self::Restore(a, _) | Self::Rewind(a, _) | Self::Jump(a, _) | Self::Set(a, _) => vec![a],
            Self::Heal | Self::Lose(_) | Self::Double(_) | Self::Reorder(_) | Self::Truncate(_) | Self::Corrupt(_) => {
                Vec::new()
            }
        }
    }

    /// The labels of the twins that it starts.
    pub(crate) fn twins(&self) -> Vec<String> {
        match self {
            Self::Twin(names) => names.iter().map(|name| format!("{name}'")).collect(),
            _ => Vec::new(),
        }
    }
}

/// A false statement of a member about another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// `left`: it has said goodbye.
    Left,
    /// `dead`: it does not answer.
    Dead,
    /// `run`: it has begun a later run.
    Run,
    /// `life`: it has used up all the lives of its run.
    Life,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Left, Self::Dead, Self::Run, Self::Life];

    /// The lie in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Dead => "dead",
            Self::Run => "run",
            Self::Life => "life",
        }
    }
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The time.
    pub at: Time,
    /// The fault.
    pub fault: Fault,
}

/// Why a script was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step \"{step}\": {why}")]
pub struct ScriptError {
    step: String,
    why: String,
}

/// Parses a script.
///
/// # Errors
/// [`ScriptError`] names the first invalid step.
pub fn script(text: &str) -> Result<Vec<Step>, ScriptError> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
    let steps = lines.flat_map(|line| line.split(';')).map(str::trim).filter(|step| !step.is_empty());
    let mut steps = steps.map(str::parse).collect::<Result<Vec<Step>, _>>()?;
    steps.sort_by_key(|step| step.at);
    Ok(steps)
}

/// Writes a script in the form that [`script`] parses.
pub fn write_script(steps: &[Step]) -> String {
    steps.iter().map(Step::to_string).collect::<Vec<_>>().join("\n")
}

fn names(word: &str) -> Vec<String> {
    word.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn time(word: &str) -> Result<Duration, String> {
    let digits = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let number: f64 = word[..digits].parse().map_err(|_| format!("\"{word}\" is not a time like 250ms, 2s or 1h"))?;
    let seconds = match &word[digits..] {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("\"{word}\" is not a time like 250ms, 2s or 1h")),
    };
    if (0.0..1e9).contains(&seconds) {
        Ok(Duration::from_micros((seconds * 1e6).round() as u64))
    } else {
        Err(format!("\"{word}\" is too long"))
    }
}

fn share(word: &str) -> Result<u32, String> {
    let number = word.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let share = number.filter(|n| (0.0..=100.0).contains(n)).ok_or(format!("\"{word}\" is not a share like 10%"))?;
    Ok((share * 100.0).round() as u32)
}

impl FromStr for Step {
    type Err = ScriptError;

    fn from_str(step: &str) -> Result<Self, ScriptError> {
        let error = |why: String| ScriptError { step: step.to_owned(), why };
        let words: Vec<_> = step.split_whitespace().collect();
        let ["at", at, rest @ ..] = words.as_slice() else {
            return Err(error("write it like \"at 2s cut a,b from c\"".to_owned()));
        };
        let at = Time::default().after(time(at).map_err(error)?);
        Ok(Self { at, fault: fault(rest).map_err(error)? })
    }
}

fn fault(words: &[&str]) -> Result<Fault, String> {
    Ok(match words {
        ["heal"] => Fault::Heal,
        ["cut", a, "from", "rest"] => Fault::Cut(names(a), Vec::new()),
        ["cut", a, "from", b] => Fault::Cut(names(a), names(b)),
        ["cut", a, "to", "rest"] => Fault::CutOneWay(names(a), Vec::new()),
        ["cut", a, "to", b] => Fault::CutOneWay(names(a), names(b)),
        ["crash", a] => Fault::Crash(names(a)),
        ["restart", a] => Fault::Restart(names(a)),
        ["reuse", a] => Fault::Reuse(names(a)),
        ["twin", a] => Fault::Twin(names(a)),
        ["leave", a] => Fault::Leave(names(a)),
        ["stop", a] => Fault::Stop(names(a)),
        ["resume", a] => Fault::Resume(names(a)),
        ["slow", a] => Fault::Slow(names(a)),
        ["renew", a] => Fault::Renew(names(a)),
        ["reload", a] => Fault::Reload(names(a)),
        ["forget", a, "at", b] => Fault::Forget((*a).to_owned(), (*b).to_owned()),
        ["lie", a, lie, b] => {
            let lie = Lie::ALL.into_iter().find(|known| known.as_str() == *lie).ok_or("no such lie; see Lie")?;
            Fault::Lie((*a).to_owned(), lie, (*b).to_owned())
        }
        ["restore", a, age] => Fault::Restore((*a).to_owned(), time(age)?),
        ["reboot", a] => Fault::Reboot(names(a)),
        ["rewind", a, age] => Fault::Rewind((*a).to_owned(), time(age)?),
        ["full", a] => Fault::Full(names(a)),
        ["jump", a, by] => Fault::Jump((*a).to_owned(), time(by)?),
        ["set", a, by] => {
            let (sign, by) = by.strip_prefix('-').map_or((1, by.trim_start_matches('+')), |by| (-1, by));
            Fault::Set((*a).to_owned(), sign * time(by)?.as_millis() as i64)
        }
        ["lose", n] => Fault::Lose(share(n)?),
        ["double", n] => Fault::Double(share(n)?),
        ["reorder", n] => Fault::Reorder(share(n)?),
        ["truncate", n] => Fault::Truncate(share(n)?),
        ["corrupt", n] => Fault::Corrupt(share(n)?),
        _ => return Err("no such fault; see tallymesh_harness::Fault".to_owned()),
    })
}

struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        match (micros % 1_000_000, micros % 1000) {
            (0, _) => write!(f, "{}s", micros / 1_000_000),
            (_, 0) => write!(f, "{}ms", micros / 1000),
            _ => write!(f, "{micros}us"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} {}", Span(self.at.since(Time::default())), self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |names: &[String]| if names.is_empty() { "rest".to_owned() } else { names.join(",") };
        match self {
            Self::Cut(a, b) => write!(f, "cut {} from {}", side(a), side(b)),
            Self::CutOneWay(a, b) => write!(f, "cut {} to {}", side(a), side(b)),
            Self::Heal => f.write_str("heal"),
            Self::Crash(a) | Self::Restart(a) | Self::Reuse(a) | Self::Twin(a) | Self::Leave(a) => {
                write!(f, "{} {}", self.kind(), side(a))
            }
            Self::Stop(a)
            | Self::Resume(a)
            | Self::Slow(a)
            | Self::Renew(a)
            | Self::Reload(a)
            | Self::Reboot(a)
            | Self::Full(a) => {
                write!(f, "{} {}", self.kind(), side(a))
            }
            Self::Lie(a, lie, b) => write!(f, "lie {a} {} {b}", lie.as_str()),
            Self::Forget(a, b) => write!(f, "forget {a} at {b}"),
            Self::Restore(a, age) => write!(f, "restore {a} {}", Span(*age)),
            Self::Rewind(a, age) => write!(f, "rewind {a} {}", Span(*age)),
            Self::Jump(a, by) => write!(f, "jump {a} {}", Span(*by)),
            Self::Set(a, by) => {
                let sign = if *by < 0 { '-' } else { '+' };
                write!(f, "set {a} {sign}{}", Span(Duration::from_millis(by.unsigned_abs())))
            }
            Self::Lose(n) | Self::Double(n) | Self::Reorder(n) | Self::Truncate(n) | Self::Corrupt(n) => {
                write!(f, "{} {}%", self.kind(), f64::from(*n) / 100.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_is_written() {
        let text = "at 1s cut a,b from c\nat 1.5s cut a to rest\nat 2s heal\nat 3s crash a\nat 3s restart a\nat 3s reuse a\n\
                    at 3s twin b\nat 3s leave b'\nat 3s stop a\nat 3s resume a\nat 3s slow a\nat 3s renew c\n\
                    at 3s reload c\nat 3s restore c 1500ms\nat 3s reboot a,b\n\
                    at 3s rewind c 2s\nat 3s full b\nat 3s forget a at b\nat 3s lie a left b\nat 3s lie a life b\nat 4s jump a 1h\nat 5s set a -90s\nat 6s lose 12.5%\nat 6s double 5%\n\
                    at 6s reorder 5%\nat 6s truncate 1%\nat 250001us corrupt 0.01%";
        let steps = script(text).unwrap();
        assert_eq!(steps.len(), 27);
        assert_eq!(script(&write_script(&steps)).unwrap(), steps);
        assert_eq!(script("at 2s heal; at 1s crash a # both").unwrap()[0].fault, Fault::Crash(vec!["a".to_owned()]));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for bad in ["heal", "at x heal", "at 2s hael", "at 2s lose 10", "at 2s cut a c", "at 2s lose 101%"] {
            let error = script(&format!("at 1s heal; {bad}")).unwrap_err();
            assert_eq!(error.step, bad);
        }
    }
}
