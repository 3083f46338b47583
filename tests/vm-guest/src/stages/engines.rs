//! What the stages with container engines of an installed system share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sensor_tests::dockerd::IMAGE;
use sensor_tests::oci::make_rootfs;
use sensor_tests::process::run;
use sensor_tests::sensor::Sensor;
use serde_json::json;

use super::{containerd, docker, podman};
use crate::report::Report;

/// Where the stages keep their files, on no file system that is mounted without devices.
pub const DIRECTORY: &str = "/var/lib/vm-guest";

/// A root file system of busybox, made when it is not there.
pub fn rootfs() -> Result<PathBuf> {
    let rootfs = Path::new(DIRECTORY).join("rootfs");
    if !rootfs.exists() {
        make_rootfs(&rootfs)?;
    }
    Ok(rootfs)
}

/// Puts the one image into the store of every engine. This is done once for a disk, before it is anybody's: it takes longer
/// than all that the sensor does.
pub fn fill_stores(_: &mut Report) -> Result<()> {
    let archive = image_archive()?;
    let archive = archive.to_str().context("the path is not text")?;
    docker::fill_store(archive)?;
    containerd::fill_stores(archive)?;
    podman::fill_stores(archive)?;
    rustix::fs::sync();
    Ok(())
}

/// Makes the one image, in the format of `docker save`, which all engines load.
fn image_archive() -> Result<PathBuf> {
    let archive = Path::new(DIRECTORY).join("image.tar");
    let parts = Path::new(DIRECTORY).join("image");
    fs::create_dir_all(&parts)?;
    let layer = parts.join("layer.tar");
    pack(&layer, &rootfs()?)?;
    let sum = run(Command::new("sha256sum").arg(&layer))?;
    let sum = sum.split(' ').next().unwrap_or_default();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]}
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    for (name, contents) in [("config.json", config), ("manifest.json", manifest)] {
        fs::write(parts.join(name), contents.to_string())?;
    }
    pack(&archive, &parts)?;
    Ok(archive)
}

fn pack(archive: &Path, directory: &Path) -> Result<()> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    let mut tar = Command::new("tar");
    run(tar.arg("--directory").arg(directory).arg("--create").arg("--file").arg(archive).args(names))?;
    Ok(())
}

/// Asks the service manager for something.
pub fn systemctl(arguments: &[&str]) -> Result<String> {
    run(Command::new("systemctl").args(arguments))
}

/// What every record of a container must say.
pub struct Container<'a> {
    /// Full id.
    pub id: &'a str,
    /// Who manages it.
    pub runtime: &'a str,
    /// Name, of those that have one.
    pub name: Option<&'a str>,
    /// Image; the one there is when nothing else is said.
    pub image: Option<&'a str>,
    /// Path of its cgroup.
    pub cgroup: &'a str,
}

impl Container<'_> {
    /// Demands the records of these steps, with all that is known of the container.
    pub fn check(&self, sensor: &Sensor, steps: &[&str]) -> Result<()> {
        let mut fields = vec![
            ("container.runtime", self.runtime),
            ("container.image", self.image.unwrap_or(IMAGE)),
            ("container.cgroup", self.cgroup),
        ];
        fields.extend(self.name.map(|name| ("container.name", name)));
        for step in steps {
            let record = sensor.wait_container(step, self.id)?;
            ensure!(record.is("container", &fields), "not {fields:?}: {record}");
        }
        Ok(())
    }
}
