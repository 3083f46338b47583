//! What somebody does to see what there is, and who that is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::An1352Limits;
use super::tools::{discovery_of, scanner_of};
use crate::chains::analytic::{
    DISCOVERY_REQUEST, DISCOVERY_SCANNER, DISCOVERY_SOCKET, DISCOVERY_SWEEP, DISCOVERY_TOOL,
};
use crate::fact::{ApiRequest, Fact, FactKind, Process, Runtime, ScanShape, Verdict};
use crate::http::route::ApiClass;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Principal {
    /// Whoever has this address.
    Peer(IpAddr),
    /// Whatever runs in the container with this id.
    Container(Arc<str>),
    /// Whatever the process with this pid, which goes by this name, has started on the host. The pid alone may be another
    /// one's later.
    Tree(u32, Arc<str>),
}

/// One act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) principal: Principal,
    /// Name of its signal.
    pub(super) signal: &'static str,
    /// What it asks for, of closed lists.
    pub(super) text: Arc<str>,
    /// Tells it from other calls: what it asks for, word for word.
    pub(super) hash: u64,
    /// Nobody has to do more to be looking around.
    pub(super) is_burst: bool,
}

impl Call {
    /// The call that a fact tells of, if it is one of somebody who is not expected to make it.
    pub(super) fn of(fact: &Fact, verdict: Option<&Verdict>, limits: &An1352Limits) -> Option<Self> {
        let container = fact.container.as_ref().map(|container| Principal::Container(container.key()));
        // Nobody is meant to have a tool under another name.
        let is_hidden = fact.process.as_ref().is_some_and(|process| process.program.renamed);
        if matches!(verdict, Some(Verdict::Listed(_))) && !is_hidden {
            return None;
        }
        match &fact.kind {
            FactKind::ApiRequest(api) if verdict == Some(&Verdict::Unlisted) => Self::of_request(fact, api),
            FactKind::Exec { .. } => Self::of_exec(fact.process.as_deref()?, container),
            FactKind::SocketConnect { path, inode, service } => {
                let text = format!("socket of {}", service.unwrap_or(Runtime::Unknown).name());
                Some(Self::new(container?, DISCOVERY_SOCKET, text, &(path, inode)))
            }
            FactKind::Scan { shape: ScanShape::Sweep, targets, .. } => {
                let text = format!("sweep of {targets} endpoints");
                let is_burst = *targets >= u64::from(limits.sweep_targets);
                Some(Self { is_burst, ..Self::new(container?, DISCOVERY_SWEEP, text, &fact.id.0) })
            }
            _ => None,
        }
    }

    fn new(principal: Principal, signal: &'static str, text: String, identity: &impl Hash) -> Self {
        // Its keys are constant, so that replay is the same.
        let mut hasher = DefaultHasher::new();
        (signal, identity).hash(&mut hasher);
        Self { principal, signal, text: text.into(), hash: hasher.finish(), is_burst: false }
    }

    fn of_request(fact: &Fact, api: &ApiRequest) -> Option<Self> {
        let (peer, service, _) = fact.access()?;
        if api.class != ApiClass::Discovery {
            return None;
        }
        let text = format!("{} {}", service.name(), api.route.as_deref()?);
        Some(Self::new(Principal::Peer(peer), DISCOVERY_REQUEST, text, &(service, &api.method, &api.path)))
    }

    /// On the host, whoever uses the tools by their names administers the node.
    fn of_exec(process: &Process, container: Option<Principal>) -> Option<Self> {
        let args = process.args.as_deref().unwrap_or_default();
        let program = &process.program;
        if let Some(text) = program.tool.as_deref().and_then(|tool| discovery_of(tool, args)) {
            let is_burst = program.renamed && container.is_some();
            let principal = match container {
                Some(container) => container,
                None if program.renamed => starter_of(process)?,
                None => return None,
            };
            let words = args.get(1..).unwrap_or_default();
            return Some(Self { is_burst, ..Self::new(principal, DISCOVERY_TOOL, text, &words) });
        }
        let text = scanner_of(process.exe.as_deref(), args)?;
        Some(Self { is_burst: true, ..Self::new(container?, DISCOVERY_SCANNER, text.to_owned(), &args) })
    }
}

/// What has started a process: its parent, and where that is a part of a script that forked, the script.
fn starter_of(process: &Process) -> Option<Principal> {
    let (parent, others) = process.ancestors.split_first()?;
    let is_same = |other: &&crate::fact::Ancestor| parent.exe.is_some() && other.exe == parent.exe;
    let starter = others.iter().take_while(is_same).last().unwrap_or(parent);
    Some(Principal::Tree(starter.pid, starter.comm.clone()))
}
