//! Requests to management APIs and what they cause.

use std::sync::Arc;

use sensor_core::fact;
use sensor_core::ids::{ConnId, RecordId};
use sensor_core::risks::Risk;

use super::super::DecodeError;
use super::super::kind::Kind;
use super::super::record::{Api, Origin, Socket};
use super::super::seq::List;
use super::{required, shared, text};

impl<'a> Api<'a> {
    /// A request to this service.
    pub(super) fn of(service: fact::Service, api: &'a fact::ApiRequest) -> Self {
        Self {
            service: service.into(),
            method: text(&api.method),
            path: text(&api.path),
            route: text(&api.route),
            class: api.class.into(),
            version: text(&api.version),
            status: api.status,
            user_agent: text(&api.user_agent),
            body_flags: List::Core(&api.body_flags),
            image: text(&api.image),
            command: List::Core(&api.command),
            protocol: api.protocol.map(Into::into),
            client: api.client.as_deref().map(Into::into),
        }
    }
}

impl From<Api<'_>> for fact::ApiRequest {
    fn from(api: Api<'_>) -> Self {
        Self {
            method: shared(api.method),
            path: shared(api.path),
            route: shared(api.route),
            class: api.class.into(),
            version: shared(api.version),
            status: api.status,
            user_agent: shared(api.user_agent),
            body_flags: api.body_flags.into_read().into_iter().map(Risk::from).collect(),
            image: shared(api.image),
            command: api.command.into_read().into_iter().map(Arc::from).collect(),
            protocol: api.protocol.map(Into::into),
            client: api.client.map(|client| Box::new(client.into())),
            socket: None,
        }
    }
}

impl<'a> From<&'a fact::SocketUse> for Socket<'a> {
    fn from(used: &'a fact::SocketUse) -> Self {
        Self {
            path: text(&used.path),
            inode: used.inode,
            service: used.service.map(Into::into),
            conn: Some((&used.conn.0).into()),
        }
    }
}

impl TryFrom<Socket<'_>> for fact::SocketUse {
    type Error = DecodeError;

    fn try_from(socket: Socket<'_>) -> Result<Self, DecodeError> {
        let conn = required(socket.conn, Kind::ApiRequest, "socket.conn")?;
        let (path, service) = (shared(socket.path), socket.service.map(Into::into));
        Ok(Self { path, inode: socket.inode, service, conn: ConnId(conn.into()) })
    }
}

impl From<Origin<'_>> for fact::Origin {
    fn from(origin: Origin<'_>) -> Self {
        Self {
            class: origin.class.into(),
            conn: origin.conn.map(|conn| ConnId(conn.into())),
            request: origin.request.map(|id| RecordId(id.into())),
            candidates: origin.candidates.into_read().into_iter().map(|conn| ConnId(conn.into())).collect(),
        }
    }
}

impl<'a> From<&'a fact::Origin> for Origin<'a> {
    fn from(origin: &'a fact::Origin) -> Self {
        Self {
            conn: origin.conn.as_ref().map(|conn| (&conn.0).into()),
            request: origin.request.as_ref().map(|id| (&id.0).into()),
            candidates: List::Core(&origin.candidates),
            class: origin.class.into(),
        }
    }
}
