//! Lines on their way out: encoded once, handed to every output that wants their kind.

use std::io::Write;
use std::time::Instant;

use bytes::Bytes;
use sensor_core::engine::Output;
use sensor_core::fact::{Direction, Enrichment, ExecRole, Fact, FactKind};
use sensor_core::http::route::ApiClass;
use tracing::warn;

use crate::sinks::{FINISH_LIMIT, LineFile, Out, Overflow, QUEUE_BYTES, Sink, SinkError, Stream};
use crate::wire::{self, Kind, KindFilter};

mod allowance;

use self::allowance::{Allowance, Author};

/// A chunk is handed over when it has grown to this size, or at the end of a turn.
const CHUNK_BYTES: usize = 64 << 10;

struct Destination {
    kinds: KindFilter,
    sink: Sink,
    chunk: Vec<u8>,
    /// Bytes up to which the chunk may take bulk lines, as far as was asked.
    bulk_room: usize,
    /// Bulk lines that were not put into a chunk.
    refused: u64,
}

impl Destination {
    fn push(&mut self, line: &[u8], bulk: bool) {
        if bulk && !self.has_bulk_room(line.len()) {
            self.refused += 1;
            return;
        }
        self.chunk.extend_from_slice(line);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    fn has_bulk_room(&mut self, bytes: usize) -> bool {
        let wanted = self.chunk.len() + bytes;
        if wanted > self.bulk_room {
            // The reader may have made room since it was asked last.
            self.bulk_room = self.sink.bulk_room();
        }
        wanted <= self.bulk_room
    }

    fn flush(&mut self) {
        if !self.chunk.is_empty() {
            let spare = Vec::with_capacity(self.chunk.len());
            self.sink.write(Bytes::from(std::mem::replace(&mut self.chunk, spare)));
            self.bulk_room = 0;
        }
    }

    fn shed(&self) -> u64 {
        self.sink.shed() + self.refused
    }
}

/// Whether an output is one of those that a container, or somebody without rights, can make as many of as he likes. They may
/// not crowd out the others.
///
/// The role of a program is not asked for in a container, where everybody can give a program a runtime's name; nor does
/// an exit tell it. A process of which it is not known where it is counts as one of a container.
fn is_bulk(output: &Output) -> bool {
    let Output::Fact { fact, .. } = output else { return matches!(output, Output::Signal { .. }) };
    let on_host = |fact: &Fact| fact.container.is_none() && fact.quality.enrichment != Enrichment::None;
    match &fact.kind {
        FactKind::Accept { .. }
        | FactKind::AcceptTask
        | FactKind::Scan { .. }
        | FactKind::Escape(_)
        | FactKind::Container { .. } => false,
        // Likewise a hello; that of whoever gets further is followed by what he does.
        FactKind::Connect { .. } | FactKind::TlsHello(_) => true,
        // A port above 1023 needs no right to be listened on; whoever may ask at all can ask as often as he likes.
        FactKind::Listener { .. } | FactKind::ApiRequest(_) | FactKind::Audit(_) => true,
        FactKind::Close { .. } => fact.net.as_ref().and_then(|net| net.direction) != Some(Direction::Inbound),
        FactKind::Exec { role } => *role == ExecRole::Workload || !on_host(fact),
        FactKind::Exit { .. } | FactKind::SocketConnect { .. } | FactKind::FileRead { .. } => !on_host(fact),
    }
}

/// Who has a share of his own for a line of this kind.
fn author_of(fact: &Fact) -> Option<Author> {
    let container = || fact.container.as_ref().map(|container| Author::Container(container.id.clone()));
    match &fact.kind {
        // What changes nothing gives way to what does.
        FactKind::ApiRequest(api)
            if matches!(api.class, ApiClass::Probe | ApiClass::Discovery | ApiClass::Other) =>
        {
            None
        }
        FactKind::ApiRequest(api) if api.socket.is_some() => container(),
        FactKind::ApiRequest(_) => Some(Author::Peer(fact.net.as_ref()?.peer.as_ref()?.ip)),
        FactKind::Listener { netns, .. } => container().or_else(|| {
            let uid = fact.process.as_ref().and_then(|process| process.uid);
            Some(Author::Listener { uid, netns: *netns })
        }),
        _ => container(),
    }
}

/// How many lines each output had been given at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written(Vec<u64>);

/// The outputs of one run.
#[derive(Default)]
pub struct OutputQueue {
    destinations: Vec<Destination>,
    allowance: Allowance,
    line: Vec<u8>,
    finishing: bool,
}

impl OutputQueue {
    /// Adds an output.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn add(
        &mut self,
        out: impl Write + Send + 'static,
        kinds: KindFilter,
        overflow: Overflow,
    ) -> Result<(), SinkError> {
        self.add_with(Stream(out), kinds, overflow, QUEUE_BYTES)
    }

    /// Adds a file that sheds.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn add_file(&mut self, file: LineFile, kinds: KindFilter) -> Result<(), SinkError> {
        self.add_with(file, kinds, Overflow::Shed, QUEUE_BYTES)
    }

    fn add_with(
        &mut self,
        out: impl Out,
        kinds: KindFilter,
        overflow: Overflow,
        queue_bytes: usize,
    ) -> Result<(), SinkError> {
        let sink = Sink::start(out, overflow, queue_bytes)?;
        self.destinations.push(Destination { kinds, sink, chunk: Vec::new(), bulk_room: 0, refused: 0 });
        Ok(())
    }

    /// Encodes one output and gives it to everybody who wants it.
    ///
    /// Lines stay in their order. Of a queue that sheds, bulk lines get one half: whoever makes many of them does not
    /// crowd out what happens on the management plane. The first ones of every container are none of these.
    pub fn push(&mut self, output: &Output) {
        let (kind, bulk) = (Kind::of(output), is_bulk(output) && !self.is_allowed(output));
        self.line.clear();
        wire::encode(output, &mut self.line);
        for destination in &mut self.destinations {
            if destination.kinds.admits(kind) {
                destination.push(&self.line, bulk);
            }
        }
    }

    fn is_allowed(&mut self, output: &Output) -> bool {
        let Output::Fact { fact, .. } = output else { return false };
        author_of(fact).is_some_and(|author| self.allowance.take(author, fact.at.boot_ns))
    }

    /// Hands over what is encoded.
    pub fn flush(&mut self) {
        self.destinations.iter_mut().for_each(Destination::flush);
    }

    /// Whether every output that sheds has room for this many more bytes of bulk lines. Who can wait asks before he hands
    /// any over.
    #[must_use]
    pub fn has_bulk_room(&self, bytes: usize) -> bool {
        self.destinations.iter().all(|destination| {
            destination.sink.is_closed() || destination.chunk.len() + bytes <= destination.sink.bulk_room()
        })
    }

    /// What has been handed over so far, for [`Self::has_written`].
    #[must_use]
    pub fn written(&self) -> Written {
        Written(self.destinations.iter().map(|destination| destination.sink.queued()).collect())
    }

    /// Whether every output has dealt with what had been handed over by then.
    #[must_use]
    pub fn has_written(&self, Written(given): &Written) -> bool {
        let destinations = self.destinations.iter().zip(given);
        destinations.into_iter().all(|(destination, given)| destination.sink.dealt_with() >= *given)
    }

    /// Lines that found no room since the start.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.destinations.iter().map(Destination::shed).sum()
    }

    /// Whether nobody reads any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.destinations.is_empty()
            && self.destinations.iter().all(|destination| destination.sink.is_closed())
    }

    /// Lets the lines from here on wait for their readers, for [`FINISH_LIMIT`] in all with what is left to
    /// [`Self::finish`]. To be called when nothing is captured any more and before the last lines are pushed, so that
    /// these are not shed unless a reader is stuck.
    pub fn begin_finish(&mut self) {
        if !std::mem::replace(&mut self.finishing, true) {
            let overflow = Overflow::BlockUntil(Instant::now() + FINISH_LIMIT);
            self.destinations.iter_mut().for_each(|destination| destination.sink.set_overflow(overflow));
        }
    }

    /// Waits until everything is written, within a limit.
    ///
    /// # Errors
    /// When an output failed, was closed by its reader, or did not take the last lines in time.
    pub fn finish(mut self) -> Result<(), SinkError> {
        self.begin_finish();
        self.flush();
        let mut result = Ok(());
        for Destination { sink, refused, .. } in self.destinations {
            let totals = sink.finish(FINISH_LIMIT);
            let shed = totals.shed + refused;
            if shed > 0 {
                warn!(shed, written = totals.written, "lines were not written");
            }
            if let Some(error) = totals.error {
                result = Err(error);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests;
