//! HTTP/1 as it is seen on the wire: pieces of two byte streams in, requests with their answers out.
//!
//! ```text
//! captured segments -> Reassembly -> Reader -> Conversation -> Exchange (request, status, id in the reply)
//!                      order, gaps   framing   pairing
//! ```
//!
//! Owns framing and pairing. It reads what the server reads and nothing else: where it cannot know where a message begins,
//! it says so instead of guessing. What a request means is [`docker`]'s, [`kubelet`]'s and [`kubernetes`]'s. Every buffer has a
//! bound.

pub mod conversation;
pub mod create;
pub mod docker;
pub mod head;
mod json;
pub mod kubelet;
pub mod kubernetes;
pub mod reader;
pub mod reassembly;
pub mod route;

use route::Endpoint;

/// Whose API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Docker's or podman's.
    Docker,
    /// The kubelet's.
    Kubelet,
    /// That of the Kubernetes API server.
    Kubernetes,
}

impl Api {
    /// The endpoint that a request is for.
    #[must_use]
    pub fn endpoint(self, method: &str, path: &str) -> Endpoint {
        match self {
            Self::Docker => docker::endpoint(method, path),
            Self::Kubelet => kubelet::endpoint(method, path),
            Self::Kubernetes => kubernetes::endpoint(method, path),
        }
    }
}
