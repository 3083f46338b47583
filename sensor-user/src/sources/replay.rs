//! Recorded output as a source: lines in, facts to the engine, in the order of the files.
//!
//! Time comes from the records, so that two replays are the same byte for byte. Knows neither files nor sinks.

use std::fmt;
use std::io::{self, BufRead};
use std::net::IpAddr;
use std::sync::Arc;

use sensor_core::audit::ParseError;
use sensor_core::engine::{Engine, Output, Policy, Settings};
use sensor_core::fact::Node;
use sensor_core::ids::RunId;

use crate::wire::{self, LINE_MAX, Recorded, Unwatched};

/// Name of the node that records of an audit log bear: the log does not say which API server wrote it.
const AUDIT_LOG: &str = "kubernetes-audit";
/// Its boot id: there is no boot.
const NO_BOOT: &str = "00000000-0000-0000-0000-000000000000";

/// A line that was left out, with its place in the form `file:line:column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Name of the input.
    pub input: String,
    /// From 1.
    pub line: u64,
    /// In bytes, from 1.
    pub column: usize,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: error: {}", self.input, self.line, self.column, self.message)
    }
}

/// What comes out of a replay.
pub trait Audience {
    /// A record of the engine. Returns whether there is anybody left to hear more.
    fn output(&mut self, output: &Output) -> bool;
    /// A node's own addresses, from a health record.
    fn addresses(&mut self, _node: &Node, _addresses: &[IpAddr]) {}
    /// A line that was left out.
    fn malformed(&mut self, malformed: Malformed);
}

/// Lines of a replay by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Facts handed to the engine.
    pub facts: u64,
    /// Events of audit logs.
    pub events: u64,
    /// Records that are derived again, or belonged to the sensor that recorded them.
    pub passed_over: u64,
    /// Lines that could not be read.
    pub malformed: u64,
}

/// One replay over any number of inputs.
pub struct Replay<A> {
    policy: Policy,
    /// Stands for the API server whose events are read.
    cluster: Arc<Node>,
    /// Made with the first record, because the engine's own records belong to the node of the recording.
    engine: Option<Engine>,
    audience: A,
    counts: Counts,
    over: bool,
}

impl<A: Audience> Replay<A> {
    /// A replay that judges with this policy; `cluster` is the name of the cluster that events of audit logs are of.
    pub fn new(policy: Policy, cluster: Option<Arc<str>>, audience: A) -> Self {
        let cluster = Node { name: AUDIT_LOG.into(), boot_id: NO_BOOT.into(), cluster };
        Self {
            policy,
            cluster: Arc::new(cluster),
            engine: None,
            audience,
            counts: Counts::default(),
            over: false,
        }
    }

    /// Feeds one input.
    ///
    /// # Errors
    /// When the input cannot be read; lines that have no meaning are counted and told to the audience instead.
    pub fn feed(&mut self, name: &str, input: impl BufRead) -> io::Result<()> {
        let mut lines = Lines::new(input);
        while let Some((number, line)) = lines.next()? {
            let recorded = match line {
                Line::TooLong => Err((LINE_MAX + 1, format!("the line is longer than {LINE_MAX} bytes"))),
                Line::Whole(line) if line.trim_ascii().is_empty() => continue,
                Line::Whole(line) => match wire::decode(line) {
                    Ok(recorded) => self.take(recorded, line).map_err(|error| (1, error.to_string())),
                    Err(error) => Err((error.column(), error.to_string())),
                },
            };
            match recorded {
                Ok(()) => self.pass_on(),
                Err((column, message)) => {
                    self.counts.malformed += 1;
                    self.audience.malformed(Malformed {
                        input: name.to_owned(),
                        line: number,
                        column,
                        message,
                    });
                }
            }
            if self.over {
                break;
            }
        }
        Ok(())
    }

    /// Whether nobody listens any more.
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// Ends the replay with the engine's last record, if there was any record at all.
    pub fn finish(mut self) -> (A, Counts) {
        if let Some(engine) = &mut self.engine {
            engine.finish_replay();
        }
        self.pass_on();
        (self.audience, self.counts)
    }

    fn take(&mut self, recorded: Recorded, line: &[u8]) -> Result<(), ParseError> {
        match recorded {
            Recorded::Fact(fact) => {
                self.counts.facts += 1;
                self.engine_of(&fact.node).handle_fact(*fact);
            }
            Recorded::Health { node, addresses, boot_ns, lost, lost_audit, unwatched } => {
                self.counts.passed_over += 1;
                let engine = self.engine_of(&node);
                if let Some(Unwatched { from_ns, to_ns, in_doubt }) = unwatched {
                    engine.handle_replayed_resume(&node, from_ns, to_ns, in_doubt.as_deref());
                }
                engine.handle_replayed_health(&node, boot_ns, lost, lost_audit);
                if !addresses.is_empty() {
                    engine.handle_replayed_addresses(addresses.clone());
                    self.audience.addresses(&node, &addresses);
                }
            }
            Recorded::Derived => self.counts.passed_over += 1,
            // Nobody recorded it, so that its records get ids of this replay.
            Recorded::AuditEvent => {
                let node = Arc::clone(&self.cluster);
                self.engine_of(&node).handle_audit_line(&node, line)?;
                self.counts.events += 1;
            }
        }
        Ok(())
    }

    fn engine_of(&mut self, node: &Arc<Node>) -> &mut Engine {
        self.engine.get_or_insert_with(|| {
            Engine::new(Settings {
                // Facts keep their ids; the ids of the replay's own records must not depend on chance.
                run: RunId(0),
                node: Arc::clone(node),
                policy: std::mem::take(&mut self.policy),
                // What is recorded has been merged and held already.
                merge_window_ns: 0,
                hold_ns: 0,
                canary_interval_ns: None,
                packets_rest_ns: 0,
            })
        })
    }

    fn pass_on(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        // What the live engine asks of the machine has no meaning for a recording.
        while engine.next_request().is_some() {}
        while let Some(output) = engine.next_output() {
            self.over |= !self.audience.output(&output);
        }
    }
}

/// A line of bounded length.
enum Line<'a> {
    Whole(&'a [u8]),
    TooLong,
}

/// Lines with their numbers, from a reader of bytes.
struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    const fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), number: 0 }
    }

    fn next(&mut self) -> io::Result<Option<(u64, Line<'_>)>> {
        self.buffer.clear();
        let mut too_long = false;
        let mut any = false;
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                break;
            }
            any = true;
            let newline = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..newline.unwrap_or(available.len())];
            if self.buffer.len() + part.len() <= LINE_MAX {
                self.buffer.extend_from_slice(part);
            } else {
                too_long = true;
            }
            let used = newline.map_or(available.len(), |newline| newline + 1);
            self.input.consume(used);
            if newline.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some((self.number, if too_long { Line::TooLong } else { Line::Whole(&self.buffer) })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8], capacity: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut lines = Lines::new(io::BufReader::with_capacity(capacity, input));
        let mut all = Vec::new();
        while let Some((number, line)) = lines.next().expect("memory can be read") {
            all.push(match line {
                Line::Whole(line) => (number, Some(line.to_vec())),
                Line::TooLong => (number, None),
            });
        }
        all
    }

    #[test]
    fn lines_do_not_depend_on_the_size_of_reads() {
        for capacity in [1, 2, 3, 100] {
            let expected = [(1, Some(b"ab".to_vec())), (2, Some(Vec::new())), (3, Some(b"cd".to_vec()))];
            assert_eq!(lines(b"ab\n\ncd", capacity), expected);
            assert_eq!(lines(b"ab\n\ncd\n", capacity), expected);
        }
        assert_eq!(lines(b"", 1), []);
    }

    #[test]
    fn a_line_without_end_is_skipped_in_bounded_memory() {
        let mut input = vec![b'x'; LINE_MAX + 1];
        input.extend_from_slice(b"\nok\n");
        assert_eq!(lines(&input, 4096), [(1, None), (2, Some(b"ok".to_vec()))]);
        let longest = vec![b'x'; LINE_MAX];
        assert_eq!(lines(&longest, 4096), [(1, Some(longest))]);
    }
}
