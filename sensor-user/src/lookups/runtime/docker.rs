//! Docker: `<data root>/containers/<id>/config.v2.json`, and `hostconfig.json` beside it.

use std::path::Path;

use sensor_core::fact::Runtime;
use sensor_core::risks::Spec;
use serde::Deserialize;

use super::super::file::{self, FileError};
use super::docker_options::{self, HostConfig, Options};
use super::docker_ports::NetworkSettings;
use super::managers::Managers;
use super::oci::Annotations;
use super::{Found, Search, storage, text, time};

/// The part of `config.v2.json` that is read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    created: String,
    config: Option<Config>,
    network_settings: Option<NetworkSettings>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<Annotations>,
}

/// Reads a container from the data root that has it.
pub(super) fn read(search: Search<'_>, managers: &Managers) -> Found {
    let rootless = search.owner().and_then(|uid| storage::home(search.roots, uid));
    rootless
        .and_then(|home| read_state(search, &home.join(".local/share/docker"), search.owner()))
        .or_else(|| managers.find_in_docker(|root| read_state(search, root, None)))
        .unwrap_or_default()
}

fn read_state(search: Search<'_>, root: &Path, owner: Option<u32>) -> Option<Found> {
    let id = &*search.query.id;
    let directory = root.join("containers").join(id);
    let state: State = file::read_json(&directory.join("config.v2.json"), owner).ok()?;
    if *state.id != *id {
        return None;
    }
    let Config { image, labels } = state.config.unwrap_or_default();
    let labels = labels.unwrap_or_default();
    let options = read_options(search, &directory, owner);
    let published = state.network_settings.unwrap_or_default().published();
    Some(Found {
        runtime: Some(Runtime::Docker),
        name: text(state.name.strip_prefix('/').unwrap_or(&state.name)),
        image: text(&image),
        created: time(&state.created),
        k8s: labels.k8s(),
        sandbox: labels.sandbox(),
        refused: matches!(&options, Err(error) if !error.is_absent()),
        awaits_ports: matches!(&options, Ok((_, true))) && published.is_empty(),
        published,
        manager_spec: options.ok().map(|(spec, _)| spec),
        state_directory: Some(directory),
        ..Found::default()
    })
}

/// What it was asked for, and whether that has ports to publish.
fn read_options(search: Search<'_>, directory: &Path, owner: Option<u32>) -> Result<(Spec, bool), FileError> {
    let host: HostConfig = file::read_json(&directory.join("hostconfig.json"), owner)?;
    let options: Options = file::read_json(&directory.join("config.v2.json"), owner)?;
    let publishes = host.publishes();
    Ok((docker_options::read(host, options, search.roots, owner), publishes))
}
