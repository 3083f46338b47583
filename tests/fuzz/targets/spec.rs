//! What runtimes were asked for, as whoever makes containers writes it: an OCI spec, docker's options, the process of an
//! exec.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use quaywatch::lookups::Roots;
use quaywatch::lookups::cgroupfs::Hierarchies;
use quaywatch::lookups::runtime::Containers;
use sensor_core::engine::{ContainerQuery, ProcessQuery};
use sensor_core::fact::Runtime;
use sensor_core::risks::{PATH_MAX, RISKS_MAX, Risk, Risks};

const ID: &str = "4b6832429f73fdc1073278bf44f3f837ce2be1c5356e81c659af68152cc21f1c";

/// A host made of files, and its containers.
struct Host {
    root: PathBuf,
    containers: Containers,
}

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let root = std::env::temp_dir().join(format!("quaywatch-fuzz-spec-{}", std::process::id()));
        for directory in [format!("var/lib/docker/containers/{ID}"), "bundle".into(), "etc".into()] {
            fs::create_dir_all(root.join(directory)).expect("a directory can be made");
        }
        let state = format!("{{\"ID\":\"{ID}\",\"Name\":\"/web\"}}");
        let path = root.join(format!("var/lib/docker/containers/{ID}/config.v2.json"));
        fs::write(path, state).expect("a file can be written");
        let roots = Roots { host: root.clone(), proc: "/proc".into() };
        let containers = Containers::new(roots, Hierarchies { unified: None, pids: None }, Vec::new());
        Host { root, containers }
    })
}

fn check(risks: Option<&Risks>) {
    let Some(risks) = risks else { return };
    assert!(risks.list.len() <= RISKS_MAX, "there is a bound");
    for risk in &*risks.list {
        let name = risk.name();
        assert!(name.len() <= PATH_MAX + 16, "every name has a bound");
        assert_eq!(Risk::from_name(&name).as_ref(), Some(risk), "a replay reads it");
    }
    let order = |risk: &Risk| (std::cmp::Reverse(risk.weight()), risk.name().into_owned());
    assert!(risks.list.is_sorted_by(|one, other| order(one) < order(other)), "in order, and each once");
}

fuzz_target!(|bytes: &[u8]| {
    let Host { root, containers } = host();
    let query = ContainerQuery {
        key: ID.into(),
        id: ID.into(),
        runtime: Runtime::Unknown,
        namespace: None,
        bundle: Some("/bundle".into()),
        root: None,
        uid: None,
        made_unix_ns: None,
    };
    let spec = root.join("bundle/config.json");
    fs::write(&spec, bytes).expect("a file can be written");
    let metadata = containers.read(&query);
    check(metadata.risks.as_ref());
    let process = containers.read_process(&ProcessQuery { number: 0, file: "/bundle/config.json".into(), uid: None });
    check(process.into_risks().as_ref());

    fs::remove_file(&spec).expect("it was just written");
    let options = root.join(format!("var/lib/docker/containers/{ID}/hostconfig.json"));
    fs::write(&options, bytes).expect("a file can be written");
    check(containers.read(&query).risks.as_ref());
    fs::remove_file(&options).expect("it was just written");
});
