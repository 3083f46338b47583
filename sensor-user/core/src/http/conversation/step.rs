//! What a conversation is made of, as it is told.

use std::sync::Arc;

use super::super::create::CreateBody;
use super::super::head::RequestHead;
use super::super::route::Endpoint;
use crate::time::Timestamp;
use crate::tls::hello::ClientHello;

/// What is spoken on a connection that is not HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Foreign {
    /// HTTP/2 without TLS.
    Http2,
    /// Something else, or HTTP that two readers might read differently.
    Unknown,
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the listener: requests.
    ToServer,
    /// From it: answers.
    ToClient,
}

/// A request, and what is known of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When the request's head was complete.
    pub at: Timestamp,
    /// The request.
    pub head: RequestHead,
    /// What it is for.
    pub endpoint: Endpoint,
    /// What the body asks for, of a request that makes a container or a volume.
    pub create: Option<CreateBody>,
    /// Status of the answer.
    pub status: Option<u16>,
    /// The id that the answer gives to what the request has made.
    pub created: Option<Arc<str>>,
    /// Every byte before it was accounted for: it is certain that this answer is this request's.
    pub exact: bool,
}

/// Something that happened on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A request was made; its answer is still to come.
    Asked {
        /// When its head was complete.
        at: Timestamp,
        /// What it is for.
        endpoint: Endpoint,
        /// Every byte before it was accounted for.
        exact: bool,
    },
    /// It was answered, or will not be.
    Answered(Box<Exchange>),
    /// What is spoken is TLS; said once, when the hello is there or will not be.
    Hello(Timestamp, Box<ClientHello>),
    /// What is spoken is neither TLS nor HTTP/1; said once.
    Foreign(Timestamp, Foreign),
}
