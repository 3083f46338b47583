//! The closed list of what audit events can signal, and what each cannot see.

use std::net::IpAddr;
use std::sync::Arc;

use crate::chains::{Confidence, Severity};

/// Defines the list: name, analytic, stage, whether it is a finding by itself, what it means, what it cannot see.
macro_rules! signals {
    ($($variant:ident = $name:literal, $analytic:literal, $stage:literal, $complete:literal,
       $means:literal, $blind:literal;)+) => {
        /// What was noticed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum SignalName {
            $(#[doc = $means] $variant,)+
        }

        impl SignalName {
            /// Every name.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in the output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The analytic that it is a stage of.
            #[must_use]
            pub const fn analytic(self) -> &'static str {
                match self { $(Self::$variant => $analytic,)+ }
            }

            /// That stage.
            #[must_use]
            pub const fn stage(self) -> &'static str {
                match self { $(Self::$variant => $stage,)+ }
            }

            /// Whether the analytic is complete with it, so that it is a finding.
            #[must_use]
            pub const fn is_complete(self) -> bool {
                match self { $(Self::$variant => $complete,)+ }
            }

            /// What it means.
            #[must_use]
            pub const fn means(self) -> &'static str {
                match self { $(Self::$variant => $means,)+ }
            }

            /// What it cannot see, at level Metadata above all.
            #[must_use]
            pub const fn blind(self) -> &'static str {
                match self { $(Self::$variant => $blind,)+ }
            }
        }
    };
}

signals! {
    BoundTokenElsewhere = "bound-token-elsewhere", "AN1547", "unexpected-source", true,
        "A token bound to a pod is used from an address that is not its node's or its pod's.",
        "Use on the node itself, or behind the same translated address; tokens of API servers before 1.30 where no kubelet has reported the pod.";
    NodeCredentialElsewhere = "node-credential-elsewhere", "AN1547", "unexpected-source", true,
        "A kubelet's credential is used from an address that is not its node's.",
        "Use on the node itself; nodes that all reach the API server through one address.";
    IssuedTokenElsewhere = "issued-token-elsewhere", "AN1547", "unexpected-source", true,
        "A token that a node or another program had issued is used from another address than it was issued at.",
        "Tokens issued before the log begins; API servers before 1.29, which do not name what they issue.";
    CredentialNewSource = "credential-new-source", "AN1547", "unexpected-source", true,
        "A certificate, an unbound or a legacy token is used from outside of all networks, or away from where it was always used, and no entry of the allow-list expects it.",
        "Use from a listed network or the usual /24 (/64); credentials without id are told apart by their user only.";
    AnonymousAccess = "anonymous-access", "AN1547", "unexpected-source", true,
        "A request without credentials was answered with objects of the cluster.",
        "`cluster-info` in kube-public and public paths are left out: they are meant to be read.";
    DiscoveryBurst = "discovery-burst", "AN1352", "discovery", true,
        "One principal makes many different discovery requests in a short time: refused ones, reviews of its own rights, lists it never made before.",
        "A client that goes slowly, that lists as caches do (`resourceVersion`), or only what it always lists. Namespaces of rule reviews are in bodies only.";
    AnonymousDiscovery = "anonymous-discovery", "AN1352", "discovery", true,
        "Many different paths are asked for without credentials from one address.",
        "Fewer paths than the threshold, or one address each.";
    ListedDiscovery = "listed-discovery", "AN1352", "discovery", false,
        "As `discovery-burst`, by a person at an expected address.",
        "As `discovery-burst`.";
    CredentialGuessing = "credential-guessing", "AN1547", "credential-access", false,
        "Credentials from one address are refused again and again.",
        "Whose they claim to be: the API server does not say. A client with an expired token looks the same.";
    KubeletProxy = "kubelet-proxy", "AN1352", "discovery", false,
        "A kubelet is asked through the API server for more than its metrics.",
        "What the kubelet answered; direct connections to port 10250.";
    KubeletReview = "kubelet-review", "AN1352", "discovery", false,
        "A kubelet asks whether somebody may use its API beyond metrics: somebody has connected to it directly.",
        "At level Metadata neither who nor what: there only several reviews of one kubelet within seconds tell, and answers that the kubelet has in its cache (minutes) leave nothing.";
    ServiceProxy = "service-proxy", "AN1352", "discovery", false,
        "A service or pod is reached through the API server's proxy, as dashboards are.",
        "What went through it.";
    PodExec = "pod-exec", "AN1547", "cluster-use", false,
        "A program, or somebody at an unexpected address, executes, attaches or forwards a port into a pod.",
        "What is typed into it; sessions through the kubelet.";
    EphemeralContainer = "ephemeral-container", "AN1547", "cluster-use", false,
        "A program, or somebody at an unexpected address, puts an ephemeral container into a running pod.",
        "Image and rights of it at level Metadata.";
    PrivilegedPod = "privileged-pod", "AN1547", "cluster-use", false,
        "A pod, or a template of pods, asks for privileges over the host.",
        "At level Metadata only namespaces with a pod-security audit or enforce label tell, and templates only when their pods are made.";
    TokenIssued = "token-issued", "AN1547", "credential-access", false,
        "A token of another account is issued to somebody who is no kubelet and no part of the control plane.",
        "The lifetime and audience of the token, which are in the body.";
    RoleBound = "role-bound", "AN1547", "cluster-use", false,
        "A program that never did, or somebody at an unexpected address, binds a role.",
        "Role and subjects at level Metadata.";
    AnonymousBound = "anonymous-bound", "AN1547", "cluster-use", false,
        "A role is bound to everybody, with or without credentials.",
        "Everything at level Metadata, where `role-bound` and then `anonymous-access` tell.";
    CertificateApproved = "certificate-approved", "AN1547", "credential-access", false,
        "A program that is no part of the control plane, or somebody at an unexpected address, requests or approves a certificate.",
        "The groups in the certificate at level Metadata.";
    CertificateForAdmin = "certificate-for-admin", "AN1547", "credential-access", false,
        "A certificate is requested for a group that administrates or is reserved.",
        "Everything at level Metadata, where `certificate-approved` tells of programs.";
    Impersonation = "impersonation", "AN1547", "cluster-use", false,
        "A request is made as somebody else, for the first time by this principal.",
        "Repetitions: once told, the same pair is a habit.";
    WebhookRegistered = "webhook-registered", "AN1547", "cluster-use", false,
        "An admission webhook is registered or changed by a program that never did or somebody at an unexpected address, or is called outside of the cluster.",
        "Where it leads at level Metadata.";
    ImplantScheduled = "implant-scheduled", "AN1547", "cluster-use", false,
        "A CronJob or DaemonSet is made or changed by a program that never did, or by somebody at an unexpected address.",
        "Image and command at level Metadata.";
    SecretsRead = "secrets-read", "AN1547", "credential-access", false,
        "Secrets are listed in a way this program never did, or by somebody at an unexpected address.",
        "A program that reads secrets one by one as it always does; which of the values were used.";
}

/// One thing noticed, with the request that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What.
    pub name: SignalName,
    /// The request's time, nanoseconds since 1970.
    pub at_ns: u64,
    /// The request.
    pub audit_id: Arc<str>,
    /// Who made it.
    pub user: Arc<str>,
    /// With what.
    pub credential: Arc<str>,
    /// From where.
    pub source: Option<IpAddr>,
    /// How sure that is.
    pub evidence: Confidence,
    /// How much it matters, if it is a finding.
    pub severity: Option<Severity>,
    /// The particulars, for people.
    pub detail: String,
}
