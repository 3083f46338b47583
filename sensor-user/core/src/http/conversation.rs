//! A connection on which requests are made: both directions together.
//!
//! Answers belong to requests in order. Where a direction is not read from end to end, because bytes were not captured that
//! say where a message ends, the thread is taken up again when the direction of the traffic turns: a client that waits for
//! its answers sends a request there, and a server begins an answer. What is read after that is not exact, and says so; a
//! client that does not wait loses itself the thread and moves nothing to another connection. So does one that asks more at a
//! time than is waited for: its requests are told without their answers, until it waits again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::create::{self, BODY_MAX, CreateBody, created_id};
use super::head::{Framing, HTTP2_METHOD, ReplyHead, RequestHead};
use super::reader::{Item, Loss, Reader};
use super::reassembly::{Part, Piece, Reassembly};
use super::route::Endpoint;
use super::{Api, docker};
use crate::time::Timestamp;
use crate::tls::reader::{HANDSHAKE, HelloReader};

mod step;

pub use step::{Exchange, Foreign, Step, Way};

/// Most requests that wait for their answers; those of a client that asks more at a time are told without.
pub const WAITING_MAX: usize = 64;
/// Most bytes kept of what may be another protocol already.
const HELD_MAX: usize = 4 << 10;
/// Most bytes kept of the body of an answer.
const REPLY_BODY_MAX: usize = 1 << 10;
/// About what a request costs beside its body.
const EXCHANGE_BYTES: usize = 1 << 10;

/// The state of a connection.
#[derive(Debug)]
pub struct Conversation {
    api: Api,
    requests: Side,
    replies: Side,
    /// Requests without an answer, in order.
    waiting: VecDeque<Asked>,
    /// The request whose answer is being read, with the body so far.
    answering: Option<(Asked, u16, Vec<u8>)>,
    /// What came after a request whose answer may change the protocol.
    held: Option<Vec<u8>>,
    /// Requests were told without their answers in this turn: the next answers may be theirs.
    adrift: bool,
    /// No thread was lost yet.
    exact: bool,
    /// Times that what was asked until the next turn could not be read though it was captured.
    unread: u64,
    /// Something of what the client says was read.
    begun: bool,
    /// A request was read.
    spoken: bool,
    /// That it is no HTTP was said, or will be.
    foreign: bool,
    /// The hello that is read instead, and when it began.
    hello: Option<(Timestamp, HelloReader)>,
}

#[derive(Debug, Default)]
struct Side {
    order: Reassembly,
    reader: Reader,
    /// The thread is to be taken up at the next turn.
    lost: bool,
}

#[derive(Debug)]
struct Asked {
    at: Timestamp,
    head: RequestHead,
    endpoint: Endpoint,
    body: Vec<u8>,
    is_whole: bool,
}

impl Asked {
    fn finish(self, status: Option<u16>, created: Option<Arc<str>>, exact: bool) -> Step {
        let Self { at, head, endpoint, body, is_whole } = self;
        let create = create::reader(endpoint.route).map(|read| {
            let found = read(&body);
            CreateBody { truncated: found.truncated || !is_whole, ..found }
        });
        Step::Answered(Box::new(Exchange { at, head, endpoint, create, status, created, exact }))
    }
}

impl Conversation {
    /// A connection of which nothing was captured yet.
    #[must_use]
    pub fn new(api: Api) -> Self {
        Self {
            api,
            requests: Side::default(),
            replies: Side::default(),
            waiting: VecDeque::new(),
            answering: None,
            held: None,
            adrift: false,
            exact: true,
            unread: 0,
            begun: false,
            spoken: false,
            foreign: false,
            hello: None,
        }
    }

    /// A connection whose beginning is missing: it is read from the next turn on, and nothing on it is exact.
    #[must_use]
    pub fn resumed(api: Api) -> Self {
        let mut conversation = Self { exact: false, ..Self::new(api) };
        for side in [&mut conversation.requests, &mut conversation.replies] {
            side.reader.stop();
            side.lost = true;
        }
        conversation
    }

    /// Takes a captured segment; `turn` says that it is the first one after others in the other direction.
    pub fn push(&mut self, at: Timestamp, way: Way, piece: Piece<'_>, turn: bool, steps: &mut Vec<Step>) {
        // What was not captured before it may cost the thread, which is then taken up here.
        self.read(at, way, Piece { offset: piece.settled, bytes: &[], len: 0, ..piece }, steps);
        if turn && piece.offset >= piece.settled {
            self.turn(at, way, piece.offset, steps);
        }
        self.read(at, way, piece, steps);
    }

    fn read(&mut self, at: Timestamp, way: Way, piece: Piece<'_>, steps: &mut Vec<Step>) {
        let mut parts: Vec<Result<Vec<u8>, u64>> = Vec::new();
        let order = self.side(way).order.push(piece, |part| {
            parts.push(match part {
                Part::Bytes(bytes) => Ok(bytes.to_vec()),
                Part::Missing(count) => Err(count),
            });
        });
        for part in parts {
            match (way, part) {
                (Way::ToServer, Ok(bytes)) => self.read_requests(at, &bytes, steps),
                (Way::ToClient, Ok(bytes)) => self.read_replies(&bytes, steps),
                (_, Err(count)) => self.miss(at, way, count, steps),
            }
        }
        if order.is_err() {
            if self.foreign {
                self.give_up(steps);
            } else {
                self.unread += u64::from(way == Way::ToServer);
                self.lose(at, way, steps);
            }
        }
    }

    /// The connection ended: what was asked will not be answered.
    pub fn close(&mut self, at: Timestamp, steps: &mut Vec<Step>) {
        self.finish_hello(steps);
        self.finish_answer(steps);
        self.read_partial(at, steps);
        self.flush(steps);
    }

    /// Whether all of it so far was captured and is HTTP/1.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        self.exact && !self.foreign
    }

    /// Whether something was asked and not answered yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.requests.reader.partial_head().is_empty()
    }

    /// Times that what was asked until the next turn could not be read though it was captured.
    #[must_use]
    pub const fn unread(&self) -> u64 {
        self.unread
    }

    /// Bytes kept, about.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let bodies: usize = self.waiting.iter().map(|asked| asked.body.len() + EXCHANGE_BYTES).sum();
        let answering = self.answering.as_ref().map_or(0, |(asked, ..)| asked.body.len() + REPLY_BODY_MAX);
        let side = |side: &Side| side.order.heap_bytes() + side.reader.partial_head().len();
        let held = self.held.as_ref().map_or(0, Vec::len);
        let hello = self.hello.as_ref().map_or(0, |(_, hello)| hello.heap_bytes());
        bodies + answering + held + hello + side(&self.requests) + side(&self.replies)
    }

    fn side(&mut self, way: Way) -> &mut Side {
        match way {
            Way::ToServer => &mut self.requests,
            Way::ToClient => &mut self.replies,
        }
    }

    fn miss(&mut self, at: Timestamp, way: Way, count: u64, steps: &mut Vec<Step>) {
        if self.hello.is_some() {
            if way == Way::ToServer {
                self.finish_hello(steps);
            }
            return;
        }
        if way == Way::ToServer && self.held.is_some() {
            return self.lose(at, way, steps);
        }
        if let Some(Item::Lost(_)) = self.side(way).reader.skip(count) {
            self.lose(at, way, steps);
        } else if way == Way::ToServer
            && let Some(asked) = self.waiting.back_mut()
        {
            asked.is_whole = false;
        }
    }

    fn read_requests(&mut self, at: Timestamp, bytes: &[u8], steps: &mut Vec<Step>) {
        if let Some(held) = &mut self.held {
            if held.len() + bytes.len() <= HELD_MAX {
                held.extend_from_slice(bytes);
            } else {
                self.lose(at, Way::ToServer, steps);
            }
            return;
        }
        let is_first = !bytes.is_empty() && !std::mem::replace(&mut self.begun, true);
        if is_first && !self.spoken && !self.foreign && bytes.first() == Some(&HANDSHAKE) {
            self.foreign = true;
            self.replies.reader.stop();
            self.hello = Some((at, HelloReader::default()));
        }
        if let Some((began, hello)) = &mut self.hello {
            steps.extend(hello.push(bytes).map(|hello| Step::Hello(*began, Box::new(hello))));
            return;
        }
        let mut input = bytes;
        while let Some(item) = self.requests.reader.read(&mut input) {
            match item {
                Item::Head(head) => match RequestHead::parse(&head) {
                    Ok(head) if &*head.method == HTTP2_METHOD => {
                        return self.meet_foreign(at, Foreign::Http2, steps);
                    }
                    Ok(head) => self.ask(at, head, true, steps),
                    Err(_) => return self.meet_foreign(at, Foreign::Unknown, steps),
                },
                Item::Body(bytes) => self.keep_body(bytes),
                Item::End => {
                    if self
                        .waiting
                        .back()
                        .is_some_and(|asked| asked.head.upgrade || docker::may_hijack(asked.endpoint.route))
                    {
                        self.held = Some(input.to_vec());
                        return;
                    }
                }
                Item::Lost(loss) => {
                    if loss == Loss::LongHead {
                        self.read_partial(at, steps);
                    }
                    self.unread += u64::from(loss == Loss::Malformed);
                    return self.lose(at, Way::ToServer, steps);
                }
            }
        }
    }

    /// Enters a request; `whole` unless its head was cut off.
    fn ask(&mut self, at: Timestamp, head: RequestHead, whole: bool, steps: &mut Vec<Step>) {
        self.spoken = true;
        let endpoint = self.api.endpoint(&head.method, &head.path);
        steps.push(Step::Asked { at, endpoint: endpoint.clone(), exact: self.exact });
        let (framing, mut head) = (head.framing, head);
        head.truncated |= !whole;
        if self.waiting.len() == WAITING_MAX {
            self.forgo_answers(steps);
        }
        self.waiting.push_back(Asked { at, head, endpoint, body: Vec::new(), is_whole: whole });
        self.requests.reader.frame(framing);
    }

    fn keep_body(&mut self, bytes: &[u8]) {
        let Some(asked) =
            self.waiting.back_mut().filter(|asked| create::reader(asked.endpoint.route).is_some())
        else {
            return;
        };
        let room = BODY_MAX - asked.body.len();
        asked.is_whole &= bytes.len() <= room;
        asked.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn read_replies(&mut self, bytes: &[u8], steps: &mut Vec<Step>) {
        let mut input = bytes;
        while let Some(item) = self.replies.reader.read(&mut input) {
            match item {
                Item::Head(head) => match ReplyHead::parse(&head) {
                    Ok(head) => self.answer(head, steps),
                    Err(_) => return self.lose_replies(steps),
                },
                Item::Body(bytes) => {
                    if let Some((.., body)) = &mut self.answering {
                        let room = REPLY_BODY_MAX - body.len();
                        body.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    }
                }
                Item::End => self.finish_answer(steps),
                Item::Lost(_) => return self.lose_replies(steps),
            }
        }
    }

    fn answer(&mut self, head: ReplyHead, steps: &mut Vec<Step>) {
        if head.is_interim() {
            return self.replies.reader.frame(Framing::Length(0));
        }
        let Some(asked) = self.waiting.pop_front() else {
            // A server that gives up on a request that it has not read answers too, and closes.
            self.replies.reader.frame(head.framing("GET"));
            return;
        };
        let framing = head.framing(&asked.head.method);
        self.replies.reader.frame(framing);
        // What follows is no HTTP, or nothing follows.
        let is_last = matches!(framing, Framing::Opaque | Framing::UntilClose);
        if is_last {
            self.requests.reader.stop();
            self.requests.lost = false;
            self.held = None;
        }
        if head.status == 201 {
            self.answering = Some((asked, head.status, Vec::new()));
        } else {
            steps.push(asked.finish(Some(head.status), None, self.exact));
        }
        if let Some(held) = self.held.take() {
            let at = self.waiting.back().map_or_else(Timestamp::default, |asked| asked.at);
            self.read_requests(at, &held, steps);
        }
    }

    fn finish_answer(&mut self, steps: &mut Vec<Step>) {
        if let Some((asked, status, body)) = self.answering.take() {
            steps.push(asked.finish(Some(status), created_id(&body), self.exact));
        }
    }

    /// The thread of one direction is lost.
    fn lose(&mut self, at: Timestamp, way: Way, steps: &mut Vec<Step>) {
        if way == Way::ToClient {
            return self.lose_replies(steps);
        }
        self.exact = false;
        self.unread += u64::from(self.held.take().is_some_and(|held| !held.is_empty()));
        self.requests.reader.stop();
        self.requests.lost = true;
        if !self.spoken && !self.foreign {
            self.meet_foreign(at, Foreign::Unknown, steps);
        }
    }

    fn lose_replies(&mut self, steps: &mut Vec<Step>) {
        self.finish_answer(steps);
        self.exact = false;
        self.replies.reader.stop();
        self.replies.lost = true;
    }

    /// Tells what was asked without its answers: nobody can tell whose the next ones are. A request whose body is still
    /// coming stays.
    fn forgo_answers(&mut self, steps: &mut Vec<Step>) {
        self.lose_replies(steps);
        let coming = if self.requests.reader.is_in_body() { self.waiting.pop_back() } else { None };
        self.flush(steps);
        self.waiting.extend(coming);
        self.adrift = true;
    }

    /// The direction has turned: takes up a thread that was lost at the first byte.
    fn turn(&mut self, at: Timestamp, way: Way, offset: u64, steps: &mut Vec<Step>) {
        if way == Way::ToServer {
            // What was asked before was answered, or will not be: the client has gone on.
            if self.requests.lost {
                self.flush(steps);
            } else if self.replies.lost && !self.waiting.is_empty() {
                self.forgo_answers(steps);
                // Each time at least a request comes off its front.
                while let Some(held) = self.held.take() {
                    self.read_requests(at, &held, steps);
                    self.forgo_answers(steps);
                }
            }
            self.adrift = false;
        }
        // One request, or nobody can tell whose answer it is.
        let is_known = way == Way::ToServer || self.waiting.len() == 1 && !self.adrift;
        let side = self.side(way);
        if side.lost && is_known {
            side.lost = false;
            side.reader.restart();
            side.order = Reassembly::from(offset);
        }
    }

    /// Nothing more of the hello comes, if one is being read.
    fn finish_hello(&mut self, steps: &mut Vec<Step>) {
        if let Some((began, hello)) = &mut self.hello {
            steps.extend(hello.finish().map(|hello| Step::Hello(*began, Box::new(hello))));
        }
    }

    /// Nothing more can be told of this connection.
    fn give_up(&mut self, steps: &mut Vec<Step>) {
        self.finish_hello(steps);
        self.exact = false;
        self.finish_answer(steps);
        self.flush(steps);
        for side in [&mut self.requests, &mut self.replies] {
            *side = Side::default();
            side.reader.stop();
        }
        self.held = None;
    }

    fn meet_foreign(&mut self, at: Timestamp, foreign: Foreign, steps: &mut Vec<Step>) {
        let is_said = std::mem::replace(&mut self.foreign, true);
        self.give_up(steps);
        if !is_said {
            steps.push(Step::Foreign(at, foreign));
        }
    }

    /// Reads what there is of a head that will not be complete.
    fn read_partial(&mut self, at: Timestamp, steps: &mut Vec<Step>) {
        let head = self.requests.reader.partial_head();
        let Some(end) = head.iter().rposition(|byte| *byte == b'\n') else {
            if !head.is_empty() && !self.spoken && !self.foreign {
                self.meet_foreign(at, Foreign::Unknown, steps);
            }
            return;
        };
        match RequestHead::parse(&head[..=end]) {
            Ok(head) => self.ask(at, head, false, steps),
            Err(_) => self.meet_foreign(at, Foreign::Unknown, steps),
        }
    }

    fn flush(&mut self, steps: &mut Vec<Step>) {
        let exact = self.exact;
        steps.extend(self.waiting.drain(..).map(|asked| asked.finish(None, None, exact)));
    }
}

#[cfg(test)]
mod tests;
