//! Entries that speak of containers of the node, and of what these do on it.
//!
//! Nothing here is about connections that somebody opens to the node: what runs at their other end it cannot know.

use std::sync::Arc;

use super::{AllowList, Reason};
use crate::fact::{Container, ContainerAction, Fact, FactKind, K8s, ScanShape, Verdict};
use crate::time::Timestamp;

/// What containers do that may be expected of some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Act {
    /// Looks around: runs a tool of container management or a scanner, connects to the socket of a runtime, goes through
    /// endpoints of others.
    Discovery,
    /// Opens a credential.
    Credentials,
    /// Is created or started.
    Start,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 3] = [Self::Discovery, Self::Credentials, Self::Start];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Credentials => "credentials",
            Self::Start => "start",
        }
    }

    /// The act of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|act| act.name() == name)
    }

    /// What a fact of a container tells that it does.
    #[must_use]
    pub const fn of(kind: &FactKind) -> Option<Self> {
        match kind {
            FactKind::Exec { .. }
            | FactKind::SocketConnect { .. }
            | FactKind::Scan { shape: ScanShape::Sweep, .. } => Some(Self::Discovery),
            FactKind::FileRead { .. } => Some(Self::Credentials),
            // What a container is called may be known later than that it runs.
            FactKind::Container {
                action: ContainerAction::Created | ContainerAction::Started | ContainerAction::Enriched,
                ..
            } => Some(Self::Start),
            _ => None,
        }
    }
}

/// The containers that an entry speaks of, and their acts. Every kind of condition that is given must agree, by any of its
/// texts; without any it speaks of nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// References of images; one without tag and digest is any of that repository.
    pub images: Vec<Arc<str>>,
    /// Namespaces of Kubernetes.
    pub namespaces: Vec<Arc<str>>,
    /// Names of containers: those within their pods, where they are of one.
    pub containers: Vec<Arc<str>>,
    /// What they do; empty: any act.
    pub acts: Vec<Act>,
}

impl Actor {
    /// Whether it speaks of nobody, as entries about peers do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.namespaces.is_empty() && self.containers.is_empty()
    }

    fn covers(&self, act: Act, container: &Container, k8s: Option<&K8s>) -> bool {
        let does = self.acts.is_empty() || self.acts.contains(&act);
        // Whoever makes a container can call it and its image what he likes. In a namespace, others see to that.
        let may_go_by_names = act != Act::Start || !self.namespaces.is_empty();
        let image = container.image.as_deref();
        let (name, namespace) = named(container, k8s);
        !self.is_empty()
            && does
            && may_go_by_names
            && agrees(&self.images, image, is_of_reference)
            && agrees(&self.containers, name, str::eq)
            && agrees(&self.namespaces, namespace, str::eq)
    }

    /// By what a container goes of which it speaks.
    pub(super) fn reasons(&self, fact: &Fact) -> Option<Vec<Reason>> {
        let (container, act) = (fact.container.as_deref()?, Act::of(&fact.kind)?);
        let image = container.image.as_deref();
        let image =
            self.images.iter().find(|wanted| image.is_some_and(|image| is_of_reference(wanted, image)));
        let (name, namespace) = named(container, fact.k8s.as_deref());
        let one = |wanted: &[Arc<str>], found: Option<&str>| {
            wanted.iter().find(|wanted| found == Some(&***wanted)).cloned()
        };
        let mut reasons = Vec::new();
        reasons.extend(image.cloned().map(Reason::Image));
        reasons.extend(one(&self.namespaces, namespace).map(Reason::Namespace));
        reasons.extend(one(&self.containers, name).map(Reason::Container));
        reasons.push(Reason::Act(act));
        Some(reasons)
    }

    /// Whether it speaks of all that another one does.
    pub(super) fn includes(&self, other: &Self) -> bool {
        let reaches = |own: &[Arc<str>], others: &[Arc<str>], is_one: fn(&str, &str) -> bool| {
            let in_own = |text: &Arc<str>| own.iter().any(|wanted| is_one(wanted, text));
            own.is_empty() || (!others.is_empty() && others.iter().all(in_own))
        };
        let acts = self.acts.is_empty()
            || (!other.acts.is_empty() && other.acts.iter().all(|act| self.acts.contains(act)));
        // A start counts by a namespace only.
        let starts = !self.namespaces.is_empty()
            || other.namespaces.is_empty()
            || !(other.acts.is_empty() || other.acts.contains(&Act::Start));
        !self.is_empty()
            && !other.is_empty()
            && acts
            && starts
            && reaches(&self.images, &other.images, is_of_reference)
            && reaches(&self.containers, &other.containers, str::eq)
            && reaches(&self.namespaces, &other.namespaces, str::eq)
    }
}

impl AllowList {
    /// Judges what a container of the node does. `None`: no entry speaks of it, as of nearly all that containers do; that it
    /// is done is unexpected of nobody for that reason.
    #[must_use]
    pub fn judge_act(
        &self,
        at: Timestamp,
        container: Option<&Container>,
        k8s: Option<&K8s>,
        kind: &FactKind,
    ) -> Option<Verdict> {
        let (container, act) = (container?, Act::of(kind)?);
        let decides = |actor: &Actor| actor.covers(act, container, k8s);
        let entry =
            self.entries.iter().find(|entry| decides(&entry.from.actor) && entry.holds_at(at.unix_ns))?;
        Some(Verdict::Listed(entry.name.clone()))
    }
}

/// The name of a container and its namespace. The identity of a pod is told only where a kubelet's runtime or the cgroup bears
/// a label out.
fn named<'a>(container: &'a Container, k8s: Option<&'a K8s>) -> (Option<&'a str>, Option<&'a str>) {
    let within_pod = k8s.and_then(|k8s| k8s.container.as_deref());
    (within_pod.or(container.name.as_deref()), k8s.and_then(|k8s| k8s.namespace.as_deref()))
}

fn agrees(wanted: &[Arc<str>], found: Option<&str>, is_one: impl Fn(&str, &str) -> bool) -> bool {
    wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|wanted| is_one(wanted, found)))
}

/// Whether an image goes by a reference: the same repository, and the tag and digest that the reference has, if any.
fn is_of_reference(wanted: &str, image: &str) -> bool {
    let (wanted, image) = (Reference::of(wanted), Reference::of(image));
    let agrees =
        |wanted: Option<&str>, found: Option<&str>| wanted.is_none_or(|wanted| found == Some(wanted));
    // A digest says more than any tag.
    let tag = wanted.digest.is_some() || agrees(wanted.tag, image.tag);
    wanted.repository == image.repository && tag && agrees(wanted.digest, image.digest)
}

/// The parts of a reference to an image.
struct Reference<'a> {
    repository: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn of(text: &'a str) -> Self {
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        // A colon before the last slash is that of a registry's port.
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (name, None),
        };
        Self { repository, tag, digest }
    }
}

#[cfg(test)]
mod tests;
